"""Decompress what is recognised by its magic number (gzip, xz, bzip2, zstd), and install a file as its content.

The compressed file is verified first, so the decompressor only sees trusted bytes. It stays until the end, so that a
later run can resume.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from pxe_fetch.chunkmap import Check
from pxe_fetch.contract.compression import HEAD, ZSTD_WINDOW, kind_of, xz_dictionary, zstd_window
from pxe_fetch.contract.model import Digest
from pxe_fetch.contract.paths import STAGING_SUFFIX
from pxe_fetch.contract.quantity import amount
from pxe_fetch.errors import NoRoomError, PolicyError
from pxe_fetch.filesystem import NEW_FILE, Folder, no_room, translate_error
from pxe_fetch.install import file
from pxe_fetch.install.disk_space import available, memory_available
from pxe_fetch.plan import Transfer, beside

RECORD_SUFFIX = ".pxe-fetch-content"  # beside the destination: the artifact's identity, and the content's sha256

if TYPE_CHECKING:
    from bz2 import BZ2Decompressor
    from lzma import LZMADecompressor

    from backports.zstd import ZstdDecompressor

Stream: TypeAlias = "BZ2Decompressor | LZMADecompressor | ZstdDecompressor | _Gzip"  # of one; a file may have several
_READ = 256 * 1024  # compressed bytes read at a time
_PIECE = 1024 * 1024  # most bytes decompressed at a time
_CHECK_INTERVAL = 64 * _PIECE  # bytes written between two checks of the free space


def is_current(transfer: Transfer, folder: Folder, check: Check) -> bool:
    """Whether the destination has the content of this artifact; if so, set its mode and owner as configured.

    The record beside it names the content's digest, which is checked by reading the whole file. Raises FetchError as
    file.is_current does.
    """
    content = file.read_record(transfer, folder, RECORD_SUFFIX)
    # No file has the size -1, but a directory must still raise.
    size, digest = None if content else -1, Digest(algorithm="sha256", hex=content)
    return file.is_current(replace(transfer, size=size, chunk_map=None, digest=digest), folder, check)


def install(transfer: Transfer, folder: Folder, part: int, check: Check) -> None:
    """Turn the content of the verified part file into the destination.

    Raises OSError, FetchError and what `check` raises; the destination is then unchanged.
    """
    staging = beside(transfer.dest, STAGING_SUFFIX).name
    folder.remove(staging)  # left by a run that was killed
    # 0600, like the part file, until it gets its owner and mode.
    descriptor = os.open(staging, NEW_FILE, 0o600, dir_fd=folder.fd)
    try:
        try:
            content = _write_content(part, descriptor, folder, check)
        except OSError as error:  # now: removing the file frees the space that is missing
            raise translate_error(error, f"cannot decompress {transfer.dest}", where=folder.path) from error
        file.put_in_place(transfer, folder, descriptor, name=staging)
        file.write_record(transfer, folder, RECORD_SUFFIX, lambda: content)
    finally:
        os.close(descriptor)
        folder.remove(staging)


def _write_content(part: int, into: int, folder: Folder, check: Check) -> str:
    """Write the content of the part file to the file `into`; its sha256. Raises FetchError and OSError."""
    content = hashlib.sha256()
    written = checked = 0
    limit = available(folder.fd, folder.path)
    for piece in pieces(part_reader(part)):
        check()
        if written - checked >= _CHECK_INTERVAL:
            checked, limit = written, written + available(folder.fd, folder.path)
        if written + len(piece) > limit:
            raise NoRoomError(f"no room for the decompressed file: {no_room(folder.path)}")
        view = memoryview(piece)
        while view:
            view = view[os.write(into, view) :]
        content.update(piece)
        written += len(piece)
    return content.hexdigest()


def part_reader(part: int) -> io.BufferedReader:
    """A reader of the open part file from its start; closing it leaves `part` open."""
    os.lseek(part, 0, os.SEEK_SET)
    return io.BufferedReader(io.FileIO(part, closefd=False), _READ)


def pieces(packed: BinaryIO) -> Iterator[bytes]:
    """Decompress all streams of the file `packed`, piece by piece.

    Raises PolicyError if it is not compressed, damaged, truncated, or followed by something else; NoRoomError if
    decompressing takes more memory than there is; OSError if it cannot be read.
    """
    data = _filled(b"", packed)
    kind = kind_of(data)
    if kind is None:
        raise PolicyError("the fetched file is not compressed with gzip, xz, bzip2 or zstd: it cannot be decompressed")
    while data:
        if kind_of(data) != kind:
            raise PolicyError(f"the compressed bytes ({kind}) are followed by something else")
        stream = _stream(kind, data)
        while not stream.eof:
            if stream.needs_input and not data and not (data := packed.read(_READ)):
                raise PolicyError(f"the fetched file is compressed with {kind}, and truncated")
            piece = _decompress(stream, data, kind=kind)
            data = b""
            if piece:
                yield piece
        data = _next(stream.unused_data, packed)


class Content(io.BufferedIOBase):
    """The output of `pieces` as a file that is read from start to end. Reading raises what `pieces` raises."""

    def __init__(self, packed: BinaryIO) -> None:
        self._pieces = pieces(packed)
        self._left = memoryview(b"")

    def read(self, size: int | None = -1, /) -> bytes:
        taken, wanted = [], sys.maxsize if size is None or size < 0 else size
        while wanted:
            if not self._left:
                self._left = memoryview(next(self._pieces, b""))
                if not self._left:
                    break
            taken.append(self._left[:wanted])
            self._left = self._left[wanted:]
            wanted -= len(taken[-1])
        return b"".join(taken)


def _next(data: bytes, packed: BinaryIO) -> bytes:
    """`data` after a stream, and what follows it, without zero padding; b"" at the end of the file."""
    while not (data := data.lstrip(b"\0")):
        data = packed.read(_READ)
        if not data:
            return b""
    return _filled(data, packed)


def _filled(data: bytes, packed: BinaryIO) -> bytes:
    """`data`, with as much of what follows it as tells its kind and needs."""
    while len(data) < HEAD and (more := packed.read(_READ)):
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


def _stream(kind: str, head: bytes) -> Stream:
    """A decompressor of the stream that begins with `head`. Raises PolicyError and NoRoomError if it takes too much."""
    match kind:
        case "gzip":
            return _Gzip()
        case "xz":
            import lzma

            memory, dictionary = memory_available(), xz_dictionary(head)
            if memory is not None and dictionary > memory:
                raise NoRoomError(
                    f"decompressing it takes a dictionary of {amount(dictionary)} in memory (xz), and this node has "
                    f"{amount(memory)} available; with `xz -9` it takes 64 MiB, with `xz -6` 8 MiB"
                )
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=memory)
        case "bzip2":
            import bz2

            return bz2.BZ2Decompressor()
        case _:
            if (window := zstd_window(head)) > ZSTD_WINDOW:
                raise PolicyError(
                    f"the fetched file is compressed by zstd with a window of {amount(window)}, and nodes take "
                    f"{amount(ZSTD_WINDOW)} at most; compress it with `zstd --long=27`, or without --long and --ultra"
                )
            try:
                if sys.version_info >= (3, 14):
                    from compression.zstd import ZstdDecompressor
                else:
                    from backports.zstd import ZstdDecompressor
            except ImportError:
                message = "this Python cannot decompress zstd; the agent that pxe-pack freezes can"
                raise PolicyError(message) from None
            return ZstdDecompressor()


class _Gzip:
    """zlib's decompressor with the interface of bz2 and lzma."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)  # gzip alone
        self.eof, self.needs_input, self.unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length  # else there may be more output even if all input is consumed
        self.eof, self.unused_data = self._zlib.eof, self._zlib.unused_data
        return out
