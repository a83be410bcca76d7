"""Inodes: the metadata of one file, directory, link or device.

Format: doc/format.adoc "Inode Table"; `union squashfs_inode` in fs/squashfs/squashfs_fs.h. Each kind has a basic form
and an extended one (number + 7) with 64-bit sizes, link count, xattrs or a directory index.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypedDict

from pxe_pack.image.limits import Limit
from pxe_pack.squashfs.errors import corrupt
from pxe_pack.squashfs.metadata import Cursor

NO_FRAGMENT: Final = 0xFFFF_FFFF
NO_XATTRS: Final = 0xFFFF_FFFF
LONGEST_NAME: Final = 256  # bytes: the format's and the kernel's limit
LONGEST_TARGET: Final = 65_535  # bytes of a symlink's target: unsquashfs' limit; the kernel's is a page
PERMISSIONS: Final = 0o7777  # bits of a mode
EMPTY_LISTING: Final = 3  # the stored size of an empty directory, which counts "." and ".."
_EXTENDED: Final = 7

_BASE: Final = struct.Struct("<HHHHII")
_DIRECTORY: Final = struct.Struct("<IIHHI")
_DIRECTORY_X: Final = struct.Struct("<IIIIHHI")
_INDEX: Final = struct.Struct("<III")
_FILE: Final = struct.Struct("<IIII")
_FILE_X: Final = struct.Struct("<QQQIIII")
_PAIR: Final = struct.Struct("<II")
_WORD: Final = struct.Struct("<I")


class Kind(IntEnum):
    """What an inode is, by the number of its basic form."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    BLOCK_DEVICE = 4
    CHARACTER_DEVICE = 5
    FIFO = 6
    SOCKET = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Inode:
    """The fields of every inode; a fifo or a socket has no others."""

    reference: int  # its place in the inode table
    kind: Kind
    mode: int  # permissions, with set-id and sticky bits: 12 bits
    uid: int
    gid: int
    mtime: int  # seconds since 1970
    number: int  # the same for all hard links
    links: int
    xattrs: int | None  # index into the xattr table


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory(Inode):
    """A directory, with the place and size of its listing in the directory table."""

    listing: int  # reference into the directory table
    size: int  # bytes of the listing
    parent: int  # inode number
    index: int | None  # reference of the index's first entry; None if it has no index
    index_count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class File(Inode):
    """A regular file: consecutive data blocks, and possibly a tail in a fragment shared with other files."""

    size: int  # bytes
    start: int  # position of its first block in the image
    fragment: int | None  # index into the fragment table
    fragment_offset: int  # of its tail, in the decompressed fragment
    block_list: int  # reference of its blocks' sizes, 4 bytes each
    sparse: int = 0  # bytes in holes, which no block stores


@dataclass(frozen=True, kw_only=True, slots=True)
class Symlink(Inode):
    """A symbolic link."""

    target: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Device(Inode):
    """A block or character device."""

    device: int  # as the kernel encodes it: new_encode_dev()


class _Common(TypedDict):
    reference: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    number: int
    links: int
    xattrs: int | None


def read(cursor: Cursor, *, owners: Sequence[int]) -> Inode:
    """The inode at `cursor`; `owners` is the image's table of uids and gids. Raises SquashfsError if damaged."""
    reference = cursor.reference
    number, mode, uid, gid, mtime, inode_number = _BASE.unpack(cursor.read(_BASE.size))
    if not 1 <= number <= len(Kind) + _EXTENDED:
        raise corrupt(f"the inode at {reference >> 16}:{reference & 0xFFFF} has the unknown type {number}")
    if uid >= len(owners) or gid >= len(owners):
        raise corrupt(f"inode {inode_number} has owner {max(uid, gid)}, but the table has only {len(owners)}")
    extended = number > _EXTENDED
    common = _Common(
        reference=reference,
        kind=Kind(number - _EXTENDED if extended else number),
        mode=mode & PERMISSIONS,
        uid=owners[uid],
        gid=owners[gid],
        mtime=mtime,
        number=inode_number,
        links=1,
        xattrs=None,
    )
    match common["kind"]:
        case Kind.DIRECTORY:
            return _directory(cursor, common, extended=extended)
        case Kind.FILE:
            return _file(cursor, common, extended=extended)
        case Kind.SYMLINK:
            common["links"], size = _PAIR.unpack(cursor.read(_PAIR.size))
            if not 0 < size <= LONGEST_TARGET:
                raise corrupt(f"inode {inode_number} is a symlink of {size} bytes")
            target = cursor.read(size)
            common["xattrs"] = _xattrs(cursor) if extended else None
            return Symlink(**common, target=target)
        case Kind.BLOCK_DEVICE | Kind.CHARACTER_DEVICE:
            common["links"], device = _PAIR.unpack(cursor.read(_PAIR.size))
            common["xattrs"] = _xattrs(cursor) if extended else None
            return Device(**common, device=device)
        case Kind.FIFO | Kind.SOCKET:
            (common["links"],) = _WORD.unpack(cursor.read(_WORD.size))
            common["xattrs"] = _xattrs(cursor) if extended else None
            return Inode(**common)


def _xattrs(cursor: Cursor) -> int | None:
    (index,) = _WORD.unpack(cursor.read(_WORD.size))
    return None if index == NO_XATTRS else int(index)


def _directory(cursor: Cursor, common: _Common, *, extended: bool) -> Directory:
    count = 0
    if extended:
        common["links"], size, place, parent, count, offset, xattrs = _DIRECTORY_X.unpack(
            cursor.read(_DIRECTORY_X.size)
        )
        common["xattrs"] = None if xattrs == NO_XATTRS else xattrs
    else:
        place, common["links"], size, offset, parent = _DIRECTORY.unpack(cursor.read(_DIRECTORY.size))
    return Directory(
        **common,
        listing=place << 16 | offset,
        size=max(size - EMPTY_LISTING, 0),
        parent=parent,
        index=cursor.reference if count else None,
        index_count=count,
    )


def _file(cursor: Cursor, common: _Common, *, extended: bool) -> File:
    sparse = 0
    if extended:
        start, size, sparse, common["links"], fragment, offset, xattrs = _FILE_X.unpack(cursor.read(_FILE_X.size))
        common["xattrs"] = None if xattrs == NO_XATTRS else xattrs
    else:
        start, fragment, offset, size = _FILE.unpack(cursor.read(_FILE.size))
    return File(
        **common,
        size=size,
        start=start,
        fragment=None if fragment == NO_FRAGMENT else fragment,
        fragment_offset=offset,
        block_list=cursor.reference,
        sparse=sparse,
    )


def read_index(cursor: Cursor, count: int) -> Iterator[tuple[int, int, bytes]]:
    """A directory's index: for some of its headers, the offset in the listing, the block's place, the first name.

    Raises LimitError.
    """
    Limit.SQUASHFS_INDEX.check(count)
    for _ in range(count):
        at, place, size = _INDEX.unpack(cursor.read(_INDEX.size))
        if size >= LONGEST_NAME:
            raise corrupt(f"a directory's index has a name of {size + 1} bytes")
        yield at, place, cursor.read(size + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The fields that every inode starts with. `owner` holds two indices into the image's owner table."""

    mode: int
    owner: tuple[int, int]
    mtime: int
    number: int

    def pack(self, kind: Kind, *, extended: bool) -> bytes:
        """The first 16 bytes."""
        number = kind + _EXTENDED if extended else kind
        return _BASE.pack(number, self.mode, *self.owner, self.mtime, self.number)


def pack_directory(
    head: Head,
    *,
    listing: int,
    size: int,
    links: int,
    parent: int,
    xattrs: int | None,
    index: Sequence[tuple[int, int, bytes]],
) -> bytes:
    """A directory's inode, in the basic form if possible."""
    place, offset = listing >> 16, listing & 0xFFFF
    size += EMPTY_LISTING
    if size < 1 << 16 and xattrs is None and not index:
        return head.pack(Kind.DIRECTORY, extended=False) + _DIRECTORY.pack(place, links, size, offset, parent)
    fixed = _DIRECTORY_X.pack(links, size, place, parent, len(index), offset, NO_XATTRS if xattrs is None else xattrs)
    entries = (_INDEX.pack(at, block, len(name) - 1) + name for at, block, name in index)
    return head.pack(Kind.DIRECTORY, extended=True) + fixed + b"".join(entries)


def pack_file(head: Head, *, start: int, size: int, sparse: int, blocks: Sequence[int], xattrs: int | None) -> bytes:
    """A regular file's inode without a fragment, in the basic form if possible. `blocks` are sizes as on disk."""
    sizes = struct.pack(f"<{len(blocks)}I", *blocks)
    if max(start, size) < 1 << 32 and not sparse and xattrs is None:
        return head.pack(Kind.FILE, extended=False) + _FILE.pack(start, NO_FRAGMENT, 0, size) + sizes
    fixed = _FILE_X.pack(start, size, sparse, 1, NO_FRAGMENT, 0, NO_XATTRS if xattrs is None else xattrs)
    return head.pack(Kind.FILE, extended=True) + fixed + sizes


def pack_symlink(head: Head, *, target: bytes, xattrs: int | None) -> bytes:
    """A symbolic link's inode."""
    fixed = _PAIR.pack(1, len(target)) + target
    if xattrs is None:
        return head.pack(Kind.SYMLINK, extended=False) + fixed
    return head.pack(Kind.SYMLINK, extended=True) + fixed + _WORD.pack(xattrs)


def copy_with_links(cursor: Cursor, inode: Inode, *, links: int, blocks: int) -> Iterator[bytes]:
    """The bytes of `inode`, at `cursor`, with another link count; `blocks` is the number of a file's blocks.

    Raises SquashfsError for a basic file inode, which has no link count and therefore cannot have several names.
    """
    base = cursor.read(_BASE.size)
    yield base
    count = _WORD.pack(links)
    extended = _BASE.unpack(base)[0] > _EXTENDED
    if isinstance(inode, File):
        if not extended:
            raise corrupt(f"inode {inode.number} has several names but no link count")
        fields = list(_FILE_X.unpack(cursor.read(_FILE_X.size)))
        fields[3] = links
        yield _FILE_X.pack(*fields)
        for at in range(0, blocks, 2048):
            yield cursor.read(_WORD.size * min(2048, blocks - at))
        return
    cursor.read(_WORD.size)
    yield count
    if isinstance(inode, Symlink):
        yield cursor.read(_WORD.size + len(inode.target))
    elif isinstance(inode, Device):
        yield cursor.read(_WORD.size)
    if extended:
        yield cursor.read(_WORD.size)
