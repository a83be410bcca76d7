"""Decompress a stream piece by piece, within the limits of memory and of expansion."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from pxe_pack.image.limits import Limit
from pxe_pack.image.unzstd import unzstd

BLOCK = 256 * 1024  # bytes
DAMAGED = (EOFError, ValueError, zlib.error, lzma.LZMAError)  # what reading a damaged stream raises

_UNCHECKED = 64 << 20  # decompressed bytes that may come of nothing: small files of zeros are ordinary
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\x00\x00": "lzma",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
}
LONGEST_MAGIC = max(map(len, _MAGIC))


def compression(head: bytes) -> str:
    """The compression of a stream that begins with `head`: gzip, xz, lzma, bzip2 or zstd; empty if it is none."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=Limit.DECOMPRESSOR.most)


def _lzma() -> _Decompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=Limit.DECOMPRESSOR.most)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _Gzip, "xz": _xz, "lzma": _lzma, "bzip2": bz2.BZ2Decompressor
}  # fmt: skip


@dataclass(slots=True)
class Expansion:
    """How many bytes were made of how many."""

    read: int = 0
    written: int = 0

    def add(self, *, read: int = 0, written: int = 0) -> None:
        """Count bytes. Raises LimitError if they were too few for what was made of them."""
        self.read += read
        self.written += written
        Limit.EXPANSION.check((self.written - _UNCHECKED) // max(self.read, 1))


def pieces(
    name: str,
    blocks: Iterable[bytes],
    *,
    expansion: Expansion,
    ended: Callable[[bytes], None] = lambda _: None,
) -> Generator[bytes, None, None]:
    """The decompressed content of `blocks`, one stream of the compression `name`, in pieces of at most 256 KiB.

    `expansion` counts all streams of one file. `ended` gets what `blocks` had behind the stream; for zstd, which may
    have several frames, nothing. Raises one of DAMAGED if the stream is damaged or ends too soon, and LimitError if it
    expands too much.
    """

    def counted() -> Iterator[bytes]:
        for block in blocks:
            expansion.add(read=len(block))
            yield block

    def counted_back(behind: bytes) -> None:
        expansion.read -= len(behind)  # it is read again, as the beginning of the next stream
        ended(behind)

    plain = unzstd(counted()) if name == "zstd" else _decompressed(_DECOMPRESSORS[name](), counted(), counted_back)
    with closing(plain):
        for piece in plain:
            expansion.add(written=len(piece))
            yield piece


def _decompressed(
    decompressor: _Decompressor, blocks: Iterator[bytes], ended: Callable[[bytes], None]
) -> Generator[bytes, None, None]:
    try:
        while not decompressor.eof:
            block = next(blocks, b"") if decompressor.needs_input else b""
            piece = decompressor.decompress(block, BLOCK)
            if piece:
                yield piece
            elif not block and decompressor.needs_input:
                raise EOFError
    except OSError as error:  # bz2 reports damaged data this way
        if error.errno is not None:
            raise
        raise ValueError(str(error)) from error
    ended(decompressor.unused_data)


def concatenated(name: str, blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Like `pieces`, for a file of one or several streams, each of the compression `name`, with zeros between them."""
    expansion = Expansion()
    if name == "zstd":
        yield from pieces(name, blocks, expansion=expansion)
        return
    source, rest = iter(blocks), b""

    def remember(behind: bytes) -> None:
        nonlocal rest
        rest = behind

    def following() -> Iterator[bytes]:
        yield rest
        yield from source

    rest = next(source, b"")
    while rest:
        yield from pieces(name, following(), expansion=expansion, ended=remember)
        rest = rest.lstrip(b"\0")
        while not rest and (block := next(source, b"")):
            rest = block.lstrip(b"\0")


class PieceStream(io.RawIOBase):
    """An iterator of bytes as a raw stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # the buffers we get
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        target = memoryview(buffer)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
