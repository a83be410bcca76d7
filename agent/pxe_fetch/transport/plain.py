"""The header of an answer that is as plain as can be, read at a glance; http.client reads all others.

Nearly every answer to a request for a file is one: 200 or 206 of HTTP/1.1, a length, each field once and on one line,
the connection kept. http.client makes an e-mail message of it, which for small files is most of the work there is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_STATUS = re.compile(rb"HTTP/1\.1 (200|206) [\x20-\x7e]*")
_FIELD = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x20-\x7e]*)")  # a part of RFC 9112 5
_LENGTH = re.compile(r"[0-9]{1,18}")
_MOST = 64  # fields
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
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or len(lines) > _MOST:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        fields[match[1].decode().lower()] = match[2].decode().rstrip()
    length = fields.get("content-length", "")
    if (
        len(fields) != len(lines)  # one of them twice
        or not _LENGTH.fullmatch(length)
        or "transfer-encoding" in fields
        or fields.get("connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    return Header(end + len(_END), int(status[1]), int(length), fields)
