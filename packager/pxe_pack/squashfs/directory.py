"""Directory listings: sorted names, in runs whose inodes share a block of the inode table.

Format: doc/format.adoc "Directory Table"; fs/squashfs/namei.c. A run has a header with the position of the inodes'
block and an inode number, and at most 256 entries, each with its inode number as a 16-bit difference to the header's.
Names are sorted as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pxe_pack.squashfs.errors import corrupt, unsupported
from pxe_pack.squashfs.inodes import LONGEST_NAME, Kind
from pxe_pack.squashfs.metadata import Cursor, TableAppender
from pxe_pack.squashfs.superblock import METADATA_SIZE

LONGEST_RUN: Final = 256
LONGEST_LISTING: Final = (1 << 32) - 4  # bytes

_HEADER: Final = struct.Struct("<III")
_ENTRY: Final = struct.Struct("<HhHH")


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory."""

    name: bytes
    kind: Kind
    reference: int  # of its inode
    number: int  # of its inode


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A written listing: the fields that its directory's inode needs."""

    reference: int
    size: int  # bytes
    directories: int  # number of entries that are directories
    index: tuple[tuple[int, int, bytes], ...]  # as pack_directory() expects it


def read_listing(cursor: Cursor, size: int) -> Iterator[Entry]:
    """The entries in the `size` bytes at `cursor`. Raises SquashfsError if they are invalid."""
    left = size
    before = b""
    while left > 0:
        count, place, base = _HEADER.unpack(cursor.read(_HEADER.size))
        left -= _HEADER.size
        if count >= LONGEST_RUN:
            raise corrupt(f"a directory has a run of {count + 1} entries")
        for _ in range(count + 1):
            offset, difference, kind, length = _ENTRY.unpack(cursor.read(_ENTRY.size))
            left -= _ENTRY.size + length + 1
            if left < 0:
                raise corrupt("a directory's entries run past its end")
            if length >= LONGEST_NAME or not 1 <= kind <= len(Kind):
                raise corrupt(f"a directory has an entry of kind {kind} with a name of {length + 1} bytes")
            name = cursor.read(length + 1)
            if name <= before or name in {b".", b".."} or b"/" in name or b"\0" in name:
                raise corrupt(f"a directory has the name {name!r} after {before!r}")
            before = name
            yield Entry(name, Kind(kind), place << 16 | offset, base + difference & 0xFFFF_FFFF)
    if left:
        raise corrupt("a directory's listing ends in the middle of a header")


def write_listing(table: TableAppender, entries: Iterable[Entry]) -> Listing:
    """Write `entries`, which are sorted, to the directory table. Holds at most one run in memory.

    A listing longer than a block gets an index of the first header in each block, as mksquashfs writes it. A look-up
    then decompresses one block, however long the listing is.
    """
    start = table.reference
    written, directories = 0, 0
    index: list[tuple[int, int, bytes]] = []
    run: list[Entry] = []
    run_size = 0
    block = _block_of(start, 0)

    def flush() -> None:
        nonlocal written, block
        if not run:
            return
        reference = table.write(_HEADER.pack(len(run) - 1, run[0].reference >> 16, run[0].number))
        if _block_of(start, written) != block:
            block = _block_of(start, written)
            index.append((written, reference >> 16, run[0].name))
        table.write(b"".join(_pack(entry, run[0].number) for entry in run))
        written += run_size
        run.clear()

    for entry in entries:
        size = _ENTRY.size + len(entry.name)
        if run and (
            len(run) == LONGEST_RUN
            or entry.reference >> 16 != run[0].reference >> 16
            or not -0x8000 <= entry.number - run[0].number <= 0x7FFF  # noqa: PLR2004
            or _block_of(start, written + run_size + size) != _block_of(start, written)
        ):
            flush()
        if not run:
            run_size = _HEADER.size
        run.append(entry)
        run_size += size
        directories += entry.kind is Kind.DIRECTORY
    flush()
    if written > LONGEST_LISTING:
        raise unsupported(f"a directory's listing would have {written} bytes; squashfs allows {LONGEST_LISTING}")
    if written <= METADATA_SIZE:  # reading all of it is as fast
        index.clear()
    return Listing(reference=start, size=written, directories=directories, index=tuple(index))


def _block_of(start: int, written: int) -> int:
    """The index of the block that contains byte `written` of a listing, counted from its first; blocks are full."""
    return ((start & 0xFFFF) + written) // METADATA_SIZE


def _pack(entry: Entry, base: int) -> bytes:
    fixed = _ENTRY.pack(entry.reference & 0xFFFF, entry.number - base, entry.kind, len(entry.name) - 1)
    return fixed + entry.name
