"""Recognise compressed bytes by their magic number, and decompress them: gzip, xz, bzip2, zstd."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from pxe_fetch.errors import NoRoomError, PolicyError
from pxe_fetch.install.disk_space import memory_available

# RFC 1952; the .xz file format 1.1.0; bzip2(1); RFC 8878, with its sixteen kinds of skippable frames.
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
_PIECE = 1024 * 1024  # most bytes decompressed at a time


class Stream(Protocol):
    """The decompressor of one stream, with the interface of bz2 and lzma. A file may have several streams."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether it needs more input before it has more output."""

    @property
    def unused_data(self) -> bytes:
        """The input after the end of the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Decompress `data` to at most `max_length` bytes. Raises its module's own errors."""


def kind_of(head: bytes) -> str | None:
    """The compression of bytes that begin with `head`; None if it is not a known one."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def pieces(packed: BinaryIO) -> Iterator[bytes]:
    """Decompress all streams of the file `packed`, piece by piece.

    Raises PolicyError if it is not compressed, damaged, truncated, or followed by something else; NoRoomError if
    decompressing takes more memory than there is; OSError if it cannot be read.
    """
    data = _filled(b"", packed)
    kind = kind_of(data)
    if kind is None:
        raise PolicyError(f"the fetched file is not compressed with {KNOWN}, so it cannot be decompressed")
    while data:
        if kind_of(data) != kind:
            raise PolicyError(f"the compressed bytes ({kind}) are followed by something else")
        stream = _stream(kind)
        while not stream.eof:
            if stream.needs_input and not data and not (data := packed.read(_READ)):
                raise PolicyError(f"the fetched file is compressed with {kind}, and truncated")
            piece = _decompress(stream, data, kind=kind)
            data = b""
            if piece:
                yield piece
        data = _next(stream.unused_data, packed)


class Content(io.RawIOBase):
    """The output of `pieces` as a file that is read from start to end. Reading raises what `pieces` raises."""

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
    """`data` after a stream, and what follows it, without zero padding; b"" at the end of the file."""
    while not (data := data.lstrip(b"\0")):
        data = packed.read(_READ)
        if not data:
            return b""
    return _filled(data, packed)


def _filled(data: bytes, packed: BinaryIO) -> bytes:
    """`data`, with enough of what follows it to recognise its magic number."""
    while len(data) < LONGEST_MAGIC and (more := packed.read(_READ)):
        data += more
    return data


def _decompress(stream: Stream, data: bytes, *, kind: str) -> bytes:
    try:
        return stream.decompress(data, _PIECE)
    except Exception as error:  # zlib.error, LZMAError, ZstdError, and OSError of bz2: each module has its own
        # The digest is right, so these are the configured bytes, and another attempt would not help.
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise NoRoomError(f"decompressing it ({kind}) takes more memory than this node has") from None
        raise PolicyError(f"the fetched file is damaged ({kind}): {error}") from None


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
    """zlib's decompressor with the interface of bz2 and lzma."""

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
        self._is_full = len(out) == max_length  # there may be more output even if all input is consumed
        return out
