"""What is in an initrd: dracut's modules and hooks, and the versions of what it was made from. Streamed, not unpacked.

Sources: Linux, Documentation/driver-api/early-userspace/buffer-format.rst (concatenated newc archives, each perhaps
compressed, zeros between them); dracut's modules.d/90dmsquash-live and 90livenet (file names).
"""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import re
import subprocess
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol, cast

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.tools import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

BLOCK = 256 * 1024
HEADER = 110  # bytes of a newc header
NAME_LIMIT = 4096  # PATH_MAX
KEPT_LIMIT = 1 << 20  # bytes of a file whose content is looked at

_CPIO = (b"070701", b"070702")
_ZSTD, _GZIP, _XZ, _LZMA, _BZIP2 = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"\xfd7zXZ\0", b"\x5d\x00\x00", b"BZh"
_LZ4 = b"\x02\x21\x4c\x18"
_SYSTEMD = re.compile(r"(?:^|/)libsystemd-(?:shared|core)-(\d+)[^/]*\.so$")
_MODULES = re.compile(r"(?:^|/)lib/dracut/modules\.txt$")
_UPDATES_HOOK = re.compile(r"(?:^|/)pre-pivot/\d+-apply-live-updates\.sh$")


@dataclass(frozen=True, kw_only=True, slots=True)
class InitrdFacts:
    """What an initrd can do."""

    compression: str  # of its main archive: none, gzip, xz, lzma, zstd; another's name when it could not be read
    readable: bool
    modules: frozenset[str] = frozenset()  # of dracut; empty when it does not list them
    livenet: bool = False  # fetches root=live:http://…
    dmsquash_live: bool = False  # mounts a LiveOS
    applies_updates: bool = False  # copies updates/ of the medium onto the new root (dracut's apply-live-updates)
    systemd: int | None = None


class Source(Protocol):
    """Bytes that can be read from any place on."""

    def __call__(self, offset: int, size: int, /) -> bytes:
        """Bytes from `offset`; fewer than `size` at the end."""


def read_initrd(source: Source, *, name: str) -> InitrdFacts:
    """The facts of the initrd whose bytes `source` gives. Raises InputError when it is no initrd, or is damaged."""
    try:
        compression, stream = _decompressed(source, _after_early_archives(source))
        if stream is None:
            return InitrdFacts(compression=compression, readable=False)
        with contextlib.closing(stream):
            return _facts(stream, compression)
    except (EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            Problem(
                reference="initrd-damaged",
                message=f"the initrd {name} cannot be read: {str(error) or 'it ends too soon'}",
                hint="build the image again; `lsinitrd` (dracut) lists what is in an initrd",
            )
        ) from error


def _facts(stream: io.BufferedIOBase, compression: str) -> InitrdFacts:
    names: set[str] = set()
    modules: frozenset[str] = frozenset()
    systemd: int | None = None
    hook = False
    for name, content in _files(stream, lambda name: bool(_MODULES.search(name))):
        base = name.rsplit("/", 1)[-1]
        if content is not None:
            modules = frozenset(content.decode(errors="replace").split())
        elif found := _SYSTEMD.search(name):
            systemd = int(found[1])
        elif _UPDATES_HOOK.search(name):
            hook = True
        elif base in ("livenetroot", "livenetroot.sh", "dmsquash-live-root", "dmsquash-live-root.sh"):
            names.add(base.removesuffix(".sh"))
    return InitrdFacts(
        compression=compression,
        readable=True,
        modules=modules,
        livenet="livenetroot" in names or "livenet" in modules,
        dmsquash_live="dmsquash-live-root" in names or "dmsquash-live" in modules,
        applies_updates=hook,
        systemd=systemd,
    )


def _after_early_archives(source: Source) -> int:
    """Where the main archive begins: after the uncompressed ones (microcode) that others may follow."""
    start = 0
    while source(start, 6) in _CPIO:
        end = _end_of_archive(source, start)
        following = _skip_zeros(source, end)
        if following is None:
            return start
        start = following
    return start


def _end_of_archive(source: Source, offset: int) -> int:
    while True:
        size, name_size = _sizes(source(offset, HEADER))
        name = source(offset + HEADER, name_size).rstrip(b"\0")
        offset = _aligned(_aligned(offset + HEADER + name_size) + size)
        if name == b"TRAILER!!!":
            return offset


def _skip_zeros(source: Source, offset: int) -> int | None:
    """Where the next archive begins, None when only padding is left."""
    while block := source(offset, BLOCK):
        if stripped := block.lstrip(b"\0"):
            return offset + len(block) - len(stripped)
        offset += len(block)
    return None


def _decompressed(source: Source, offset: int) -> tuple[str, io.BufferedIOBase | None]:
    """The name of the compression at `offset`, and the bytes in the clear (None: not one that is read here)."""
    magic = source(offset, 6)
    if magic in _CPIO:
        return "none", io.BufferedReader(_Plain(_blocks(source, offset)), BLOCK)
    if magic.startswith(_GZIP):
        return "gzip", _inflated(source, offset, zlib.decompressobj(wbits=31))
    if magic.startswith(_XZ):
        return "xz", _inflated(source, offset, lzma.LZMADecompressor(format=lzma.FORMAT_XZ))
    if magic.startswith(_LZMA):
        return "lzma", _inflated(source, offset, lzma.LZMADecompressor(format=lzma.FORMAT_ALONE))
    if magic.startswith(_ZSTD):
        return "zstd", _unzstd(_blocks(source, offset))
    return ("lz4" if magic.startswith(_LZ4) else "bzip2" if magic.startswith(_BZIP2) else "unknown"), None


def _blocks(source: Source, offset: int) -> Iterator[bytes]:
    while block := source(offset, BLOCK):
        yield block
        offset += len(block)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _inflated(source: Source, offset: int, decompressor: _Decompressor) -> io.BufferedReader:
    def pieces() -> Iterator[bytes]:
        for block in _blocks(source, offset):
            if piece := decompressor.decompress(block):
                yield piece
            if decompressor.eof:
                return

    return io.BufferedReader(_Plain(pieces()), BLOCK)


class _Plain(io.RawIOBase):
    """A stream made of an iterator's pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        target = memoryview(buffer)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _unzstd(blocks: Iterator[bytes]) -> io.BufferedReader:
    """The bytes in the clear by zstd(1): Python has it from 3.14 on only."""
    process = tools.start("zstd", "-dcq", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    entrance, exit_ = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)

    def feed() -> None:
        # the reader stops at the end of the archive and goes away, or zstd finds the data damaged: seen over there
        with contextlib.suppress(BrokenPipeError), entrance:
            for block in blocks:
                entrance.write(block)

    def pieces() -> Generator[bytes, None, None]:
        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            while piece := exit_.read(BLOCK):
                yield piece
        finally:
            exit_.close()
            feeder.join()
            process.wait()

    pieces_in_the_clear = pieces()
    return _Closing(_Plain(pieces_in_the_clear), pieces_in_the_clear.close)


class _Closing(io.BufferedReader):
    """A reader that also ends what feeds it."""

    def __init__(self, raw: io.RawIOBase, end: Callable[[], None]) -> None:
        super().__init__(raw, BLOCK)
        self._end = end

    def close(self) -> None:
        self._end()
        super().close()


def _files(stream: io.BufferedIOBase, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """(name, content) of each member of a newc archive; the content only of small files that are `wanted`."""
    while True:
        size, name_size = _sizes(_exactly(stream, HEADER))
        padded = _aligned(HEADER + name_size) - HEADER
        name = os.fsdecode(_exactly(stream, padded)[:name_size].rstrip(b"\0"))
        if name == "TRAILER!!!":
            return
        padded = _aligned(size)
        if wanted(name) and size <= KEPT_LIMIT:
            yield name, _exactly(stream, padded)[:size]
        else:
            _skip(stream, padded)
            yield name, None


def _sizes(header: bytes) -> tuple[int, int]:
    """(file size, name size) of a newc header. Raises ValueError."""
    if len(header) < HEADER or header[:6] not in _CPIO:
        raise ValueError("it is no newc archive")
    size, name_size = int(header[54:62], 16), int(header[94:102], 16)
    if not 0 < name_size <= NAME_LIMIT:
        raise ValueError("a name in it is too long")
    return size, name_size


def _exactly(stream: io.BufferedIOBase, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _skip(stream: io.BufferedIOBase, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, BLOCK)))


def _aligned(number: int) -> int:
    return (number + 3) & ~3
