"""URLs as they may be shown."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from pxe_fetch.contract.validators import PLAIN_URL


@lru_cache(maxsize=64)  # each is told of several times
def redact(url: str) -> str:
    """`url` without user name, password, query and fragment, where secrets stand; "(not a URL)" if it is none."""
    if PLAIN_URL.fullmatch(url):
        return url
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(not a URL)"
