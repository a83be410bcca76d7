"""A squashfs inside another file: the facts of its superblock, and its tree as unsquashfs lists it.

Sources: Linux, fs/squashfs/squashfs_fs.h (superblock, compressor options); unsquashfs(1). Nothing is extracted.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from pxe_pack import tools
from pxe_pack.image.tree import Inode, resolved

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
    "d": stat.S_IFDIR, "-": stat.S_IFREG, "l": stat.S_IFLNK, "c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}  # fmt: skip
_LINE = re.compile(
    rb"(?P<type>[-dlcbps])(?P<mode>[-rwxsStT]{9}) (?P<uid>\d+)/(?P<gid>\d+)\s+(?P<size>\d+(?:,\s*\d+)?) "
    rb"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d) squashfs-root(?:/(?P<name>.*))?$"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Superblock:
    """What decides how a squashfs is written. Sizes in bytes."""

    compressor: str
    options: tuple[str, ...]  # of the compressor where they are not its defaults, as tar2sqfs -X takes them
    block_size: int
    inodes: int
    mkfs_time: int  # seconds since the epoch
    size: int  # of the file system; a file that holds one may be padded
    exportable: bool
    fragments: bool  # small files share blocks
    tails_packed: bool  # the ends of large files do so too
    stored: bool  # some of data, fragments and inodes are not compressed


def superblock(file: BinaryIO, *, offset: int = 0) -> Superblock | None:
    """The superblock at `offset`; None when there is none that Linux would mount."""
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
        # a metadata block of its own right after the superblock, never compressed
        (header,) = struct.unpack("<H", os.pread(file.fileno(), 2, offset + _SUPERBLOCK_SIZE))
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
    """The compressor's options as tar2sqfs -X takes them; what is shorter than it should be says nothing."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """The tree of the squashfs that stands `offset` bytes into `file`: a RootTree."""

    file: Path
    offset: int = 0

    def walk(self) -> Iterator[Inode]:
        return self._list()

    def stat(self, paths: Sequence[str]) -> dict[str, Inode]:
        return {inode.path: inode for inode in self._list(*paths)} if paths else {}

    def cat(self, path: str) -> bytes:
        return tools.run("unsquashfs", "-o", str(self.offset), "-cat", self.file, _literal(path))

    def resolve(self, path: str) -> str:
        return resolved(path, lambda here: self.stat([here]).get(here))

    def _list(self, *paths: str) -> Iterator[Inode]:
        arguments = ["-o", str(self.offset), "-lln", str(self.file), *map(_literal, paths)]
        with tools.start("unsquashfs", *arguments, env={"TZ": "UTC0"}) as process:
            try:
                for line in cast("IO[bytes]", process.stdout):
                    if inode := _inode(line.rstrip(b"\n")):
                        yield inode
                _, errors = process.communicate()
            except GeneratorExit:  # the caller has seen enough
                process.kill()
                raise
        # 2: not fatal, as when one of `paths` does not exist
        tools.check("unsquashfs", 0 if process.returncode == 2 and paths else process.returncode, errors)  # noqa: PLR2004


def _inode(line: bytes) -> Inode | None:
    found = _LINE.match(line)
    if not found:
        return None
    kind = found["type"].decode()
    name, _, target = (found["name"] or b"").partition(b" -> ") if kind == "l" else (found["name"] or b"", b"", b"")
    return Inode(
        path=os.fsdecode(name),
        mode=_TYPES[kind] | _bits(found["mode"].decode()),
        uid=int(found["uid"]),
        gid=int(found["gid"]),
        size=found["size"].decode().replace(" ", ""),
        mtime=found["time"].decode(),
        target=os.fsdecode(target),
    )


def _bits(text: str) -> int:
    """`rwsr-xr-t` as a number."""
    bits = 0
    for index, letter in enumerate(text):
        if letter in "rwxst" and letter != "-":
            bits |= 0o400 >> index
        if letter in "sStT":
            bits |= 0o4000 >> index // 3
    return bits


def _literal(path: str) -> str:
    """`path` for unsquashfs, which takes names for glob patterns (fnmatch(3))."""
    return re.sub(r"([][*?\\])", r"\\\1", path)
