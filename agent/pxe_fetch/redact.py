"""URLs without their secrets, for logs and reports."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from pxe_fetch.contract.rules import PLAIN_URL


@lru_cache(maxsize=64)  # the same few URLs are logged again and again
def redact(url: str) -> str:
    """`url` without user name, password, query and fragment; "(not a URL)" if it cannot be parsed."""
    if PLAIN_URL.fullmatch(url):
        return url
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(not a URL)"
