"""A squashfs inside another file: the superblock fields that determine how it was written, and its tree.

Source: Linux, fs/squashfs/squashfs_fs.h (superblock, compressor options). Nothing is extracted.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.tree import Inode, resolved, steps
from pxe_pack.squashfs import Image, Kind, inodes, original
from pxe_pack.squashfs.paths import decode, encode
from pxe_pack.tools import WorkError

MAGIC = b"hsqs"
COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQ")
_SUPERBLOCK_SIZE = 96
_NO_INODE_COMPRESSION, _NO_DATA_COMPRESSION, _NO_FRAGMENT_COMPRESSION = 0x1, 0x2, 0x8
_NO_FRAGMENTS, _ALWAYS_FRAGMENTS, _EXPORTABLE, _COMPRESSOR_OPTIONS = 0x10, 0x20, 0x80, 0x400
_STORED = 0x8000  # in the length before a metadata block: not compressed
_BLOCK_SIZES = range(4096, (1 << 20) + 1)
_MAJOR = 4

_GZIP_STRATEGIES = ("default", "filtered", "huffman", "rle", "fixed")
_XZ_FILTERS = ("x86", "powerpc", "ia64", "arm", "armthumb", "sparc")
_LZO_ALGORITHMS = ("lzo1x_1", "lzo1x_1_11", "lzo1x_1_12", "lzo1x_1_15", "lzo1x_999")

_TYPES = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Superblock:
    """The superblock fields that determine how a squashfs was written. Sizes in bytes."""

    compressor: str
    options: tuple[str, ...]  # non-default compressor options, in the syntax of tar2sqfs -X
    block_size: int
    inodes: int
    mkfs_time: int  # seconds since the epoch
    size: int  # of the filesystem; its file may be padded
    exportable: bool
    fragments: bool  # small files share blocks
    tails_packed: bool  # tails of large files share blocks too
    stored: bool  # data, fragments or inodes are uncompressed


def superblock(file: BinaryIO, *, offset: int = 0) -> Superblock | None:
    """The superblock at `offset`; None if there is none that Linux would mount."""
    data = os.pread(file.fileno(), _SUPERBLOCK_SIZE, offset)
    if len(data) < _SUPERBLOCK_SIZE:
        return None
    magic, inodes, made, block, _, compressor, log, flags, _, major, _, _, size = _SUPERBLOCK.unpack_from(data)
    if magic != MAGIC or major != _MAJOR or compressor not in COMPRESSORS:
        return None
    if block not in _BLOCK_SIZES or block != 1 << log:
        return None
    options: tuple[str, ...] = ()
    if flags & _COMPRESSOR_OPTIONS:
        # in an uncompressed metadata block of their own, right after the superblock
        header = int.from_bytes(os.pread(file.fileno(), 2, offset + _SUPERBLOCK_SIZE), "little")
        raw = os.pread(file.fileno(), header & ~_STORED, offset + _SUPERBLOCK_SIZE + 2)
        options = _options(COMPRESSORS[compressor], raw)
    return Superblock(
        compressor=COMPRESSORS[compressor],
        options=options,
        block_size=block,
        inodes=inodes,
        mkfs_time=made,
        size=size,
        exportable=bool(flags & _EXPORTABLE),
        fragments=not flags & _NO_FRAGMENTS,
        tails_packed=bool(flags & _ALWAYS_FRAGMENTS),
        stored=bool(flags & (_NO_INODE_COMPRESSION | _NO_DATA_COMPRESSION | _NO_FRAGMENT_COMPRESSION)),
    )


def _options(compressor: str, raw: bytes) -> tuple[str, ...]:
    """The compressor's options in the syntax of tar2sqfs -X; empty if `raw` is too short."""
    words = struct.unpack(f"<{len(raw) // 4}I", raw[: len(raw) // 4 * 4])
    if compressor == "gzip" and len(words) >= 2:  # noqa: PLR2004  level, window and strategies
        level, window, strategies = words[0], words[1] & 0xFFFF, words[1] >> 16
        return (f"level={level}", f"window={window}", *_chosen(_GZIP_STRATEGIES, strategies))
    if compressor == "xz" and len(words) >= 2:  # noqa: PLR2004  dictionary size and filters
        return (f"dictsize={words[0]}", *_chosen(_XZ_FILTERS, words[1]))
    if compressor == "lz4" and len(words) >= 2:  # noqa: PLR2004  format version and flags
        return ("hc",) if words[1] & 1 else ()
    if compressor == "lzo" and len(words) >= 2 and words[0] < len(_LZO_ALGORITHMS):  # noqa: PLR2004
        algorithm = _LZO_ALGORITHMS[words[0]]
        return (f"algorithm={algorithm}", f"level={words[1] if algorithm == 'lzo1x_999' else 0}")
    if compressor == "zstd" and words:
        return (f"level={words[0]}",)
    return ()


def _chosen(names: Sequence[str], bits: int) -> tuple[str, ...]:
    return tuple(name for index, name in enumerate(names) if bits >> index & 1)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The tree of an open squashfs: a RootTree, valid while the image is open.

    All look-ups together count against one limit. If the image has a graft, this is the tree before it (unless
    `with_graft`), because the next graft replaces it as a whole.
    """

    image: Image
    with_graft: bool = False  # the tree as Linux sees it

    @cached_property
    def _seen(self) -> Image:
        return self.image if self.with_graft else original(self.image) or self.image

    def walk(self) -> Iterator[Inode]:
        yield _tree_inode("", self._seen.root)
        for path, inode in self._seen.walk():
            yield _tree_inode(path, inode)

    def stat(self, paths: Sequence[str]) -> dict[str, Inode]:
        found: dict[str, Inode] = {}
        image = self._seen
        for path in paths:
            here: inodes.Inode = image.root
            for step in steps(path):
                if step:
                    entry = image.lookup(here, _name(step)) if isinstance(here, inodes.Directory) else None
                    if entry is None:
                        break
                    here = image.inode(entry.reference)
                found[step] = _tree_inode(step, here)
        return found

    def inside(self, folder: str) -> list[Inode]:
        image = self._seen
        found = _directory(image, folder)
        prefix, names = f"{folder}/" if folder else "", Usage(Limit.SQUASHFS_LISTED)
        inside = []
        for entry in image.listed(found) if found else ():
            names.add()
            inside.append(_tree_inode(prefix + decode(entry.name), image.inode(entry.reference)))
        return inside

    def cat(self, path: str, *, limit: Limit = Limit.SQUASHFS_FILE) -> bytes:
        image = self._seen
        found = image.find(path)
        if not isinstance(found, inodes.File):
            message = f"/{path} is not a regular file in the root filesystem"
            raise WorkError(Problem(reference="root-no-file", message=message))
        return image.read(found, limit=limit)

    def resolve(self, path: str) -> str:
        return resolved(path, lambda here: self.stat([here]).get(here))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes at `path`, following links; empty if it does not exist."""
        image = self._seen
        found = image.find(path)
        return image.xattrs(found) if found else {}


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """The tree of the squashfs in the file `path`. Raises SquashfsError if it is none, or damaged."""
    with Image.open(path) as image:
        yield Tree(image=image)


def _directory(image: Image, path: str) -> inodes.Directory | None:
    """The directory at `path`, without following links; None if there is none."""
    here: inodes.Inode = image.root
    for step in steps(path):
        if step:
            entry = image.lookup(here, _name(step)) if isinstance(here, inodes.Directory) else None
            if entry is None:
                return None
            here = image.inode(entry.reference)
    return here if isinstance(here, inodes.Directory) else None


def _name(path: str) -> bytes:
    return encode(path.rpartition("/")[2])


def _tree_inode(path: str, inode: inodes.Inode) -> Inode:
    size = f"{inode.size}" if isinstance(inode, inodes.File) else "0"
    if isinstance(inode, inodes.Device):
        # new_encode_dev(): twelve bits of major between the low eight and the high twelve of minor
        size = f"{inode.device >> 8 & 0xFFF},{inode.device & 0xFF | inode.device >> 12 & 0xFFF00}"
    return Inode(
        path=path,
        mode=_TYPES[inode.kind] | inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        size=size,
        mtime=f"{inode.mtime}",
        target=decode(inode.target) if isinstance(inode, inodes.Symlink) else "",
    )
