"""URLs without their secrets, for logs and reports."""

from __future__ import annotations

from pxe_fetch.contract import url as urls


def redact(url: str) -> str:
    """`url` without user name, password, query and fragment; "(not a URL)" if it cannot be parsed."""
    return urls.redact(url)
