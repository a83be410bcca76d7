"""Read the members of a tar stream together with their original headers.

Sources: pax(1), "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format" (the long
name records L and K).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

BLOCK = 512
COPY = 1 << 20
EXTENSION_LIMIT = 16 << 20  # bytes of one extended header; Linux limits each xattr to 64 KiB


class TarDamagedError(ValueError):
    """The stream is not a valid tar stream; the text says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its original headers, which have its attributes, and what is needed to pass it on."""

    headers: bytes
    path: str  # without a leading "./" and a trailing "/"; empty for the root
    link: str  # target path of a hard link, in the same form
    kind: bytes
    size: int  # of the data that follows, in bytes


def members(source: IO[bytes]) -> Iterator[Member]:
    """The members of a tar stream. Read each member's data from `source` before requesting the next one.

    Raises TarDamagedError.
    """
    while True:
        headers = b""
        given: dict[str, bytes] = {}
        while True:
            header = exactly(source, BLOCK)
            if not header.strip(b"\0"):
                _drain(source)
                return
            headers += header
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise TarDamagedError(str(error)) from error
            if info.type not in (b"x", b"g", b"L", b"K"):
                break
            if info.size > EXTENSION_LIMIT:
                raise TarDamagedError("an extended header is too large")
            data = exactly(source, info.size + -info.size % BLOCK)
            headers += data
            given.update(_extension(info.type, data[: info.size]))
        if info.type == tarfile.GNUTYPE_SPARSE:
            headers += _sparse_map(source, header)
        path = _plain(_text(given.get("GNU.sparse.name") or given.get("path")) or info.name)
        size = int(_number(given["size"])) if "size" in given else info.size
        yield Member(
            headers=headers,
            path=path,
            link=_plain(_text(given.get("linkpath")) or info.linkname),
            kind=tarfile.REGTYPE if info.type == tarfile.AREGTYPE else info.type,
            size=size if info.isreg() else 0,
        )


def _sparse_map(source: IO[bytes], header: bytes) -> bytes:
    """The blocks after an old GNU header that continue a sparse file's map (GNU tar manual, "Sparse Files")."""
    more, blocks = bool(header[482]), b""
    while more:
        blocks += exactly(source, BLOCK)
        more = bool(blocks[-BLOCK + 504])
        if len(blocks) > EXTENSION_LIMIT:
            raise TarDamagedError("the map of a sparse file is too large")
    return blocks


def _number(text: bytes) -> float:
    try:
        return float(text) if b"." in text else int(text)
    except ValueError as error:
        raise TarDamagedError("an extended header is damaged") from error


def _extension(kind: bytes, data: bytes) -> dict[str, bytes]:
    if kind == b"L":
        return {"path": data.rstrip(b"\0")}
    if kind == b"K":
        return {"linkpath": data.rstrip(b"\0")}
    values = {}
    while data:
        length_text, _, _ = data.partition(b" ")
        if not length_text.isdigit() or not len(length_text) < int(length_text) <= len(data):
            raise TarDamagedError("an extended header is damaged")
        length = int(length_text)
        name, _, value = data[len(length_text) + 1 : length - 1].partition(b"=")
        values[name.decode(errors="replace")] = value
        data = data[length:]
    return values


def _text(value: bytes | None) -> str:
    return os.fsdecode(value) if value else ""


def _plain(path: str) -> str:
    return path.removeprefix("./").strip("/") if path != "." else ""


def exactly(source: IO[bytes], size: int) -> bytes:
    """`size` bytes from `source`. Raises TarDamagedError if there are fewer."""
    data = source.read(size)
    if len(data) < size:
        raise TarDamagedError("unexpected end of file")
    return data


def _drain(source: IO[bytes]) -> None:
    while source.read(COPY):
        pass
