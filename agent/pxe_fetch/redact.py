"""URLs as they may be shown."""

from __future__ import annotations

from pxe_fetch.contract import url as urls


def redact(url: str) -> str:
    """`url` without user name, password, query and fragment, where secrets stand; "(not a URL)" if it is none."""
    return urls.redact(url)
