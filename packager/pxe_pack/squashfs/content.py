"""File content: separately compressed blocks, and fragments that hold the tails of several files.

Format: doc/format.adoc "Data and Fragment Blocks"; fs/squashfs/file.c. A block's size is a 32-bit number whose bit 24
means "not compressed"; a size of 0 stands for a block of zeros that is not stored.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs.compress import Codec, DamagedBlockError
from pxe_pack.squashfs.errors import SquashfsError, corrupt
from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.squashfs.inodes import File
from pxe_pack.squashfs.metadata import Region
from pxe_pack.squashfs.tables import Table

FRAGMENT: Final = struct.Struct("<QII")  # position, size, unused

_PLAIN: Final = 1 << 24
_SIZES_AT_ONCE: Final = 2048


def block_count(file: File, block_size: int) -> int:
    """The number of data blocks of `file`, not counting a tail in a fragment."""
    return file.size // block_size if file.fragment is not None else -(-file.size // block_size)


def read(
    file: File, *, source: FileSlice, codec: Codec, block_size: int, region: Region, fragment: Callable[[int], bytes]
) -> Iterator[bytes]:
    """The content of `file`, block by block. Raises SquashfsError if it is damaged.

    `region` is the inode table; `fragment` returns the content of a fragment by its number.
    """
    position, left = file.start, file.size
    sizes = region.cursor(file.block_list)
    count = block_count(file, block_size)
    for at in range(0, count, _SIZES_AT_ONCE):
        some = min(_SIZES_AT_ONCE, count - at)
        for size in struct.unpack(f"<{some}I", sizes.read(4 * some)):
            expected = min(block_size, left)
            data = _block(source, codec, position, size, limit=expected)
            # A block shorter than the block size is padded with zeros.
            yield data.ljust(expected, b"\0")
            position += size & ~_PLAIN
            left -= expected
    if left:
        if file.fragment is None:
            raise corrupt(f"inode {file.number} has no fragment for its last {left} bytes")
        tail = fragment(file.fragment)[file.fragment_offset : file.fragment_offset + left]
        if len(tail) < left:
            raise corrupt(f"the tail of inode {file.number} runs past the end of fragment {file.fragment}")
        yield tail


def read_fragment(table: Table, number: int, *, source: FileSlice, codec: Codec, block_size: int) -> bytes:
    """The content of fragment `number`: the tails of one or more files."""
    start, size, _ = FRAGMENT.unpack(table[number])
    return _block(source, codec, start, size, limit=block_size)


def _block(source: FileSlice, codec: Codec, position: int, size: int, *, limit: int) -> bytes:
    stored = size & ~_PLAIN
    if stored > limit:
        # A compressed block is never larger than its content; it would have been stored uncompressed.
        raise corrupt(f"the data block at {position} has {stored} bytes, more than the maximum of {limit}")
    if not stored:
        return b""
    raw = source.read(position, stored)
    if size & _PLAIN:
        return raw
    try:
        return codec.decompress(raw, limit)
    except DamagedBlockError as error:
        raise corrupt(f"cannot decompress the data block at {position}: {error}") from error


@dataclass(kw_only=True)
class Stored:
    """Where a new file's content was stored, for its inode."""

    start: int = 0
    size: int = 0
    sparse: int = 0  # bytes
    blocks: list[int] = field(default_factory=list)  # sizes, as on disk


def write(
    contents: Iterable[bytes | Path],
    *,
    put: Callable[[bytes], int],
    block_size: int,
    codec: Codec | None,
) -> list[Stored]:
    """Write each of `contents` as blocks and return where it is. `put` writes bytes and returns their position.

    Blocks are compressed in one thread per processor (the compressors release the GIL) and written in order, so the
    result does not depend on the number of threads. Full blocks of zeros are not stored.
    """
    workers = os.cpu_count() or 1
    stored: list[Stored] = []
    pending: deque[tuple[Stored, Future[tuple[int, bytes]]]] = deque()

    def finish() -> None:
        where, future = pending.popleft()
        size, data = future.result()
        position = put(data)
        if not where.blocks:
            where.start = position
        where.blocks.append(size)

    zeros = bytes(block_size)
    with ThreadPoolExecutor(workers) as pool:
        for one in contents:
            where = Stored()
            stored.append(where)
            for chunk in _chunks(one, block_size):
                where.size += len(chunk)
                if chunk == zeros:
                    where.sparse += block_size
                pending.append((where, pool.submit(_packed, chunk, codec, zeros)))
                if len(pending) > 4 * workers:
                    finish()
        while pending:
            finish()
    return stored


def _chunks(one: bytes | Path, block_size: int) -> Iterator[bytes]:
    if isinstance(one, bytes):
        yield from (one[at : at + block_size] for at in range(0, len(one), block_size))
        return
    try:
        with one.open("rb") as file:
            while chunk := file.read(block_size):
                yield chunk
    except OSError as error:
        message = f"cannot read {one}: {error.strerror or error}"
        raise SquashfsError(Problem(reference="content-unreadable", message=message)) from error


def _packed(chunk: bytes, codec: Codec | None, zeros: bytes) -> tuple[int, bytes]:
    if chunk == zeros:
        return 0, b""
    packed = codec.compress(chunk) if codec else chunk
    return (len(packed), packed) if len(packed) < len(chunk) else (_PLAIN | len(chunk), chunk)
