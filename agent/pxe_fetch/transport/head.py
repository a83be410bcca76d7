"""The head of a request: its first line and its fields (RFC 9112 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pxe_fetch.errors import PolicyError
from pxe_fetch.transport.origin import Origin, origin

_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: ?(\S[^\r\n\0]*)?", re.ASCII)  # RFC 9110 5.1, 5.5


def head(method: str, at: Origin, target: str, *, fields: Mapping[str, str], proxy: str | None) -> bytes:
    """The head for `target` of the server `at`; to a `proxy`, by plain http, with the whole URL (RFC 9112 3.2.2).

    Raises PolicyError for what cannot be sent.
    """
    if proxy:
        target = f"{at.scheme}://{at.place}{target}"
    try:
        return f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + _fields(at, tuple(fields.items()), proxy)
    except UnicodeEncodeError as error:
        raise PolicyError("it cannot be asked for: its host or a header field is not Latin-1") from error


@lru_cache(maxsize=8)  # thousands of files have the same
def _fields(at: Origin, fields: Iterable[tuple[str, str]], proxy: str | None) -> bytes:
    lines = {"host": f"Host: {at.place}"}
    credentials = {
        "Proxy-Authorization": origin(proxy).authorization if proxy else None,
        "Authorization": at.authorization,
    }
    for name, value in [*fields, *((name, value) for name, value in credentials.items() if value)]:
        line = f"{name}: {value}"
        if not _FIELD.fullmatch(line):
            raise PolicyError("a header field for it is not valid")  # its text may hold a secret
        lines[name.lower()] = line  # the last of a name wins, however it is spelt
    return "\r\n".join([*lines.values(), "", ""]).encode("latin-1")
