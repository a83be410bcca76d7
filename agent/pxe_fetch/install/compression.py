"""What compressed bytes are, told by how they begin, and what is in them: gzip, xz, bzip2, zstd."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from pxe_fetch.errors import NoRoomError, PolicyError
from pxe_fetch.install.disk_space import memory_available

# RFC 1952; the .xz file format 1.1.0; bzip2(1); RFC 8878 with its skippable frames, of which there are sixteen.
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes((byte,)) + b"\x2a\x4d\x18", "zstd") for byte in range(0x50, 0x60)),
)
LONGEST_MAGIC = 6
KNOWN = "gzip, xz, bzip2 or zstd"

_READ = 256 * 1024  # compressed bytes read at a time
_PIECE = 1024 * 1024  # most bytes that come out at a time, however well they were compressed


class Stream(Protocol):
    """One compressed stream, as bz2 and lzma have it. A file may be several in a row."""

    @property
    def eof(self) -> bool:
        """Whether its end has been seen."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before more goes in."""

    @property
    def unused_data(self) -> bytes:
        """What followed its end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes that come out when `data` goes in. Raises whatever its module has for that."""


def kind_of(head: bytes) -> str | None:
    """How the bytes that begin with `head` are compressed; None where it is in no way known here."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def pieces(packed: BinaryIO) -> Iterator[bytes]:
    """What is in the file `packed`: all its streams, a piece after the other.

    Raises PolicyError where it is not compressed, damaged, cut off, or followed by something else; NoRoomError where
    decompressing takes more memory than there is; OSError when it cannot be read.
    """
    data = _filled(b"", packed)
    kind = kind_of(data)
    if kind is None:
        raise PolicyError(f"what was fetched is not compressed by {KNOWN}, so there is nothing to decompress")
    while data:
        if kind_of(data) != kind:
            raise PolicyError(f"something that is no {kind} follows the compressed bytes")
        stream = _stream(kind)
        while not stream.eof:
            if stream.needs_input and not data and not (data := packed.read(_READ)):
                raise PolicyError(f"what was fetched is compressed by {kind}, and cut off")
            piece = _decompress(stream, data, kind=kind)
            data = b""
            if piece:
                yield piece
        data = _next(stream.unused_data, packed)


class Content(io.RawIOBase):
    """What `pieces` gives, as a file that is read from its beginning to its end. Reading raises what `pieces` does."""

    def __init__(self, packed: BinaryIO) -> None:
        self._pieces = pieces(packed)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _next(data: bytes, packed: BinaryIO) -> bytes:
    """`data`, which follows a stream, without the zeros that may pad a file; b"" at the file's end."""
    while not (data := data.lstrip(b"\0")):
        data = packed.read(_READ)
        if not data:
            return b""
    return _filled(data, packed)


def _filled(data: bytes, packed: BinaryIO) -> bytes:
    """`data` and enough of what follows it to see what it is."""
    while len(data) < LONGEST_MAGIC and (more := packed.read(_READ)):
        data += more
    return data


def _decompress(stream: Stream, data: bytes, *, kind: str) -> bytes:
    try:
        return stream.decompress(data, _PIECE)
    except Exception as error:  # zlib.error, LZMAError, ZstdError, and OSError of bz2: each module has its own
        # Its digest is right, so these are the bytes that the configuration names; no other attempt makes them better.
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise NoRoomError(f"decompressing it ({kind}) takes more memory than this node has") from None
        raise PolicyError(f"what was fetched is damaged ({kind}): {error}") from None


def _stream(kind: str) -> Stream:
    match kind:
        case "gzip":
            return _Gzip()
        case "xz":
            import lzma

            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=memory_available())
        case "bzip2":
            import bz2

            return bz2.BZ2Decompressor()
        case _:
            return _zstd()


def _zstd() -> Stream:
    try:
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdDecompressor
        else:
            from backports.zstd import ZstdDecompressor
    except ImportError:
        raise PolicyError("this Python cannot decompress zstd; the agent that pxe-pack freezes can") from None
    return ZstdDecompressor()  # a window of 128 MiB at the most, as zstd(1) without --long


class _Gzip:
    """zlib's object with the manners of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)  # gzip alone
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._is_full

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._is_full = len(out) == max_length  # there may be more, even where all that went in is used up
        return out
