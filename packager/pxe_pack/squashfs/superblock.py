"""The superblock: the first 96 bytes, with the positions of everything else.

Format: `struct squashfs_super_block` in the Linux kernel's fs/squashfs/squashfs_fs.h, and section "The Superblock" of
the format description begun by Z. Dremann (dr-emann.github.io/squashfs) and continued in squashfs-tools-ng's
doc/format.adoc. All numbers are little-endian. The checks are those of the kernel's squashfs_fill_super().
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from itertools import pairwise
from typing import Final, Self

from pxe_pack.squashfs.errors import SquashfsError, corrupt, unsupported

SIZE: Final = 96
MAGIC: Final = b"hsqs"
VERSION: Final = (4, 0)
SMALLEST_BLOCK: Final = 4096  # bytes, of file data
LARGEST_BLOCK: Final = 1 << 20
NOWHERE: Final = 0xFFFF_FFFF_FFFF_FFFF  # the place of a table that the image doesn't have
METADATA_SIZE: Final = 8192  # bytes of a metadata block before compression

_COUNTS: Final = struct.Struct("<4sIIIIHHHHHH")
_PLACES: Final = struct.Struct("<8Q")


class Compressor(IntEnum):
    """The one compressor of an image's data and metadata."""

    GZIP = 1  # zlib streams, despite the name
    LZMA = 2  # only in squashfs-tools; the kernel never supported it
    LZO = 3
    XZ = 4
    LZ4 = 5
    ZSTD = 6


class Flags(IntFlag):
    """The producer's options; the kernel only evaluates COMPRESSOR_OPTIONS."""

    PLAIN_INODES = 0x0001
    PLAIN_DATA = 0x0002
    CHECK = 0x0004
    PLAIN_FRAGMENTS = 0x0008
    NO_FRAGMENTS = 0x0010
    ALWAYS_FRAGMENTS = 0x0020
    DEDUPLICATED = 0x0040
    EXPORTABLE = 0x0080
    PLAIN_XATTRS = 0x0100
    NO_XATTRS = 0x0200
    COMPRESSOR_OPTIONS = 0x0400
    PLAIN_IDS = 0x0800


@dataclass(frozen=True, kw_only=True, slots=True)
class Superblock:
    """Counts, positions and flags. Positions are bytes from the image's start; None for a table it does not have."""

    inodes: int
    mkfs_time: int  # seconds since 1970
    block_size: int
    fragments: int
    compressor: Compressor
    flags: Flags
    ids: int
    root: int  # reference of the root directory's inode: place of its block in the inode table << 16 | offset
    bytes_used: int
    id_table: int
    xattr_table: int | None
    inode_table: int
    directory_table: int
    fragment_table: int | None
    export_table: int | None

    @classmethod
    def parse(cls, raw: bytes, *, available: int) -> Self:
        """Parse the first 96 bytes of `raw`, from an image of which `available` bytes exist.

        Raises SquashfsError if it is not a squashfs, of another version, truncated, or contradictory.
        """
        if len(raw) < SIZE or raw[:4] != MAGIC:
            raise unsupported("this is not a squashfs image: it does not start with `hsqs`")
        (
            (_, inodes, time, block_size, fragments, compressor, log, flags, ids, major, minor),
            (root, used, id_table, xattr_table, inode_table, directory_table, fragment_table, export_table),
        ) = _COUNTS.unpack_from(raw), _PLACES.unpack_from(raw, _COUNTS.size)
        if (major, minor) != VERSION:
            raise unsupported(f"the image has squashfs version {major}.{minor}; only 4.0 is supported")
        if compressor not in iter(Compressor):
            raise unsupported(f"the image has the unknown compressor number {compressor}")
        if flags & ~sum(Flags):
            raise unsupported(f"the image has unknown flags: {flags & ~sum(Flags):#06x}")
        if not SMALLEST_BLOCK <= block_size <= LARGEST_BLOCK or block_size != 1 << min(log, 32):
            raise corrupt(f"its block size is given as {block_size} and as 2^{log}")
        if used > available:
            raise corrupt(f"it should have {used} bytes but has {available}: the file is truncated")
        if not inodes or not ids:
            raise corrupt("its superblock counts no inodes, or no owners")
        found = cls(
            inodes=inodes,
            mkfs_time=time,
            block_size=block_size,
            fragments=fragments,
            compressor=Compressor(compressor),
            flags=Flags(flags),
            ids=ids,
            root=root,
            bytes_used=used,
            id_table=id_table,
            xattr_table=_place(xattr_table),
            inode_table=inode_table,
            directory_table=directory_table,
            fragment_table=_place(fragment_table),
            export_table=_place(export_table),
        )
        if problem := found.contradiction():
            raise problem
        return found

    def contradiction(self) -> SquashfsError | None:
        """The error if the kernel would refuse to mount it: tables out of order or outside the image; else None."""
        places = {
            "inode": self.inode_table,
            "directory": self.directory_table,
            # Without fragments, producers leave any value in this field.
            "fragment": self.fragment_table if self.fragments else None,
            "export": self.export_table,
            "owner": self.id_table,
            "xattr": self.xattr_table,
        }
        there = [(name, place) for name, place in places.items() if place is not None]
        for (name, place), (after, next_place) in pairwise(there):
            if place > next_place:
                return corrupt(f"its {name} table comes after its {after} table")
        if self.inode_table < SIZE or there[-1][1] > self.bytes_used:
            return corrupt("its tables are outside the image")
        if self.fragments and self.fragment_table is None:
            return corrupt(f"it has {self.fragments} fragments but no fragment table")
        if self.root & 0xFFFF >= METADATA_SIZE:
            return corrupt("its root directory is outside its metadata block")
        return None

    def pack(self) -> bytes:
        """The 96 bytes."""
        log = self.block_size.bit_length() - 1
        counts = (self.inodes, self.mkfs_time, self.block_size, self.fragments)
        first, last = (self.id_table, self.xattr_table), (self.fragment_table, self.export_table)
        tables = (*first, self.inode_table, self.directory_table, *last)
        return _COUNTS.pack(MAGIC, *counts, self.compressor, log, self.flags, self.ids, *VERSION) + _PLACES.pack(
            self.root, self.bytes_used, *(NOWHERE if table is None else table for table in tables)
        )


def _place(field: int) -> int | None:
    return None if field == NOWHERE else field
