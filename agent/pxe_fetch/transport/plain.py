"""The header of an answer that is as plain as can be, read at a glance; http.client reads all others.

Nearly every answer to a request for a file is one: 200 or 206 of HTTP/1.1, a length, each field once and on one line,
the connection kept. http.client makes an e-mail message of it, which for small files is most of the work there is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MOST = 64  # fields
# A part of RFC 9112 4 and 5. No character fits in two ways, so it is as quick on what a server makes up.
_HEAD = re.compile(rb"HTTP/1\.1 (200|206) [\x20-\x7e]*(?:\r\n[A-Za-z0-9-]+:[\x20-\x7e]*){0,%d}" % _MOST)
_FIELD = re.compile(r"\r\n([^:]+):([^\r]*)")  # of what is such a head
_LENGTH = re.compile(r"[0-9]{1,18}")
_END = b"\r\n\r\n"


class Header(NamedTuple):
    """What it says."""

    size: int  # its own, in bytes
    status: int
    length: int  # of the body, in bytes
    fields: dict[str, str]  # names in lower case


def header(data: bytes) -> Header | None:
    """The header at the beginning of `data`; None where it is not whole, or anything about it is not plain."""
    end = data.find(_END)
    head = _HEAD.fullmatch(data, 0, end) if end >= 0 else None
    if head is None:
        return None
    found = _FIELD.findall(data[:end].decode("ascii"))
    fields = {name.lower(): value.strip(" ") for name, value in found}
    length = fields.get("content-length", "")
    if (
        len(fields) != len(found)  # one of them twice
        or not _LENGTH.fullmatch(length)
        or "transfer-encoding" in fields
        or fields.get("connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    return Header(end + len(_END), int(head[1]), int(length), fields)
