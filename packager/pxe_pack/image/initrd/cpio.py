"""Stream the archives of an initrd as the kernel unpacks them: concatenated, each possibly compressed.

Sources: Linux, Documentation/driver-api/early-userspace/buffer-format.rst (concatenated newc archives, each perhaps
compressed, zeros between them) and init/initramfs.c; RFC 8878, 3.1.1 (Zstandard frames).
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from pxe_pack.image import decompress
from pxe_pack.image.decompress import BLOCK, Expansion, PieceStream, pieces
from pxe_pack.image.limits import Limit, Usage

HEADER = 110  # bytes of a newc header
NAME_LIMIT = 4096  # PATH_MAX, of names and targets
KEPT_LIMIT = 8 << 20  # largest file whose content is returned, in bytes
TRAILER = "TRAILER!!!"

_CPIO = (b"070701", b"070702")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]+")
_READ = ("gzip", "xz", "lzma", "zstd")
_ZSTD = b"\x28\xb5\x2f\xfd"
_UNREAD = {b"\x02\x21\x4c\x18": "lz4", b"\x89LZO": "lzo"}


Wanted = Callable[[str], bool]
Copied = Callable[[str, int], BinaryIO | None]  # of path and size


class Source(Protocol):
    """Random-access bytes."""

    def __call__(self, offset: int, size: int, /) -> bytes:
        """`size` bytes at `offset`; fewer at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One name in an archive. `path` has no leading slash; `mode` is st_mode, with the type."""

    path: str
    mode: int
    uid: int
    gid: int
    mtime: int  # seconds since the epoch
    size: int
    content: bytes | None  # of a file, if wanted; of a symlink, its target


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A part of an initrd that is compressed as a whole, or one uncompressed archive. Positions in bytes."""

    offset: int
    end: int
    compression: str  # none, gzip, xz, lzma, zstd; if unsupported, its name or "unknown"


@dataclass(slots=True)
class Archives:
    """The archives in `source`; `segments` is complete once `members` is exhausted."""

    source: Source
    segments: list[Segment] = field(default_factory=list)

    def members(self, wanted: Wanted, copied: Copied = lambda _path, _size: None) -> Iterator[Member]:
        """Every member of every archive, in order. Files that are `wanted` and small come with their content.

        A file for which `copied` gives a destination is copied to it, before its member comes. Stops before a segment
        with unsupported compression. Raises one of decompress.DAMAGED if the initrd is damaged, and LimitError if
        reading it costs too much.
        """
        count, names, kept = Usage(Limit.INITRD_FILES), Usage(Limit.INITRD_NAMES), Usage(Limit.INITRD_KEPT)
        for member in self._members(wanted, copied):
            count.add()
            names.add(len(member.path))
            kept.add(len(member.content or b""))
            yield member

    def _members(self, wanted: Wanted, copied: Copied) -> Iterator[Member]:
        offset, parts, expansion = 0, Usage(Limit.INITRD_PARTS), Expansion()
        while (start := _skip_zeros(self.source, offset)) is not None:
            parts.add()
            compression = _compression(self.source(start, 6))
            if compression == "none":
                plain = _Plain(self.source, start)
                yield from _archive(plain, wanted, copied)
                offset = plain.offset
            elif compression in _READ:
                stream = _decompressed(compression, self.source, start, expansion=expansion)
                yield from _archives(stream, wanted, copied)
                offset = stream.end()
            else:
                self.segments.append(Segment(offset=start, end=start, compression=compression))
                return
            self.segments.append(Segment(offset=start, end=offset, compression=compression))


def begins_initrd(head: bytes) -> bool:
    """Whether a file that begins with `head` may be an initrd: an archive, or something compressed."""
    return _compression(head[:6]) != "unknown"


def _compression(magic: bytes) -> str:
    if magic in _CPIO:
        return "none"
    named = decompress.compression(magic)
    return named or next((name for start, name in _UNREAD.items() if magic.startswith(start)), "unknown")


def _skip_zeros(source: Source, offset: int) -> int | None:
    """The offset of the next archive; None if only padding is left."""
    while block := source(offset, BLOCK):
        if stripped := block.lstrip(b"\0"):
            return offset + len(block) - len(stripped)
        offset += len(block)
    return None


class _Bytes(Protocol):
    """Sequential bytes of an archive."""

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises EOFError."""

    def skip(self, size: int) -> None:
        """Skip `size` bytes. Raises EOFError."""


@dataclass(slots=True)
class _Plain:
    """Uncompressed bytes, which can be skipped without reading them."""

    source: Source
    offset: int

    def exactly(self, size: int) -> bytes:
        data = self.source(self.offset, size)
        if len(data) < size:
            raise EOFError
        self.offset += size
        return data

    def skip(self, size: int) -> None:
        if size and not self.source(self.offset + size - 1, 1):
            raise EOFError
        self.offset += size


class _Stream:
    """A decompressed segment."""

    def __init__(self, pieces: Iterator[bytes], end: Callable[[], int]) -> None:
        self._stream = io.BufferedReader(PieceStream(pieces), BLOCK)
        self._end = end

    def exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.exactly(min(size, BLOCK)))

    def at_archive(self) -> bool:
        """Skip zeros; returns whether another archive follows in this segment."""
        while block := self._stream.peek(1):
            if stripped := block.lstrip(b"\0"):
                self._stream.read(len(block) - len(stripped))
                return True
            self._stream.read(len(block))
        return False

    def end(self) -> int:
        """The offset in the source where the segment ends; valid after its last byte was read."""
        return self._end()


def _decompressed(name: str, source: Source, offset: int, *, expansion: Expansion) -> _Stream:
    end = _end_of_frames(source, offset) if name == "zstd" else None
    at = offset

    def blocks() -> Iterator[bytes]:
        nonlocal at
        while block := source(at, BLOCK if end is None else min(BLOCK, end - at)):
            at += len(block)
            yield block

    def ended(behind: bytes) -> None:
        nonlocal at
        at -= len(behind)

    return _Stream(pieces(name, blocks(), expansion=expansion, ended=ended), lambda: at)


def _end_of_frames(source: Source, offset: int) -> int:
    """The end of a Zstandard stream: zstd -T and pzstd write several frames."""
    while source(offset, 4) == _ZSTD:
        offset = _end_of_frame(source, offset)
    return offset


def _end_of_frame(source: Source, offset: int) -> int:
    """The end of a Zstandard frame (RFC 8878, 3.1.1): header, blocks with their sizes, optional checksum."""
    descriptor = _byte(source, offset + 4)
    single = descriptor >> 5 & 1
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    size_field = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = offset + 5 + (0 if single else 1) + dictionary + size_field
    while True:
        header = source(at, 3)
        if len(header) < 3:  # noqa: PLR2004
            raise EOFError
        value = int.from_bytes(header, "little")
        last, kind, size = value & 1, value >> 1 & 3, value >> 3
        at += 3 + (1 if kind == 1 else size)  # an RLE block has one byte
        if last:
            return at + (4 if descriptor >> 2 & 1 else 0)


def _byte(source: Source, offset: int) -> int:
    data = source(offset, 1)
    if not data:
        raise EOFError
    return data[0]


def _archives(stream: _Stream, wanted: Wanted, copied: Copied) -> Iterator[Member]:
    while stream.at_archive():
        yield from _archive(stream, wanted, copied)


def _archive(stream: _Bytes, wanted: Wanted, copied: Copied) -> Iterator[Member]:
    while True:
        header = stream.exactly(HEADER)
        if header[:6] not in _CPIO:
            raise ValueError("it is not a newc archive")
        if not _HEXADECIMAL.fullmatch(header[6:]):
            raise ValueError("a header in it is damaged")
        _, mode, uid, gid, _, mtime, size, _, _, _, _, name_size, _ = (
            int(text, 16) for (text,) in struct.iter_unpack("8s", header[6:])
        )
        if not 0 < name_size <= NAME_LIMIT:
            raise ValueError("a name in it is too long")
        name = os.fsdecode(stream.exactly(_aligned(HEADER + name_size) - HEADER)[:name_size].rstrip(b"\0"))
        if name == TRAILER:
            stream.skip(_aligned(size))
            return
        path = name.removeprefix("./").strip("/") if name != "." else ""
        content = None
        if stat.S_ISLNK(mode) and size > NAME_LIMIT:
            raise ValueError("the target of a link in it is too long")
        if size <= KEPT_LIMIT and (stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and wanted(path))):
            content = stream.exactly(_aligned(size))[:size]
        elif stat.S_ISREG(mode) and (destination := copied(path, size)):
            for at in range(0, size, BLOCK):
                destination.write(stream.exactly(min(BLOCK, size - at)))
            stream.skip(_aligned(size) - size)
        else:
            stream.skip(_aligned(size))
        yield Member(path=path, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, content=content)


def _aligned(number: int) -> int:
    return (number + 3) & ~3
