"""URLs as they may be shown."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

# There is nothing in these that is left out, nor anything that urlsplit would take for something else.
_PLAIN = re.compile(r"[a-z]+://[A-Za-z0-9.:_-]+/[A-Za-z0-9/._~-]*", re.ASCII)


@lru_cache(maxsize=64)  # each is told of several times
def redact(url: str) -> str:
    """`url` without user name, password, query and fragment, where secrets stand; "(not a URL)" if it is none."""
    if _PLAIN.fullmatch(url):
        return url
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(not a URL)"
