"""Read a squashfs image: its tree, its inodes, and the content of its files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from pxe_pack.image.limits import Limit, Usage
from pxe_pack.squashfs import content, directory, inodes, paths
from pxe_pack.squashfs.compress import Codec, codec
from pxe_pack.squashfs.directory import Entry
from pxe_pack.squashfs.errors import corrupt
from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.squashfs.inodes import Directory, File, Inode, Symlink
from pxe_pack.squashfs.metadata import Region
from pxe_pack.squashfs.superblock import SIZE, Flags, Superblock
from pxe_pack.squashfs.tables import Table
from pxe_pack.squashfs.xattrs import Xattrs

_OWNER: Final = struct.Struct("<I")


class Image:
    """One image, read-only. Tables are read on first use. Not thread-safe."""

    def __init__(self, source: FileSlice, superblock: Superblock) -> None:
        self.source = source
        self.superblock = superblock
        self._last_fragment = (-1, b"")
        self._searched = Usage(Limit.SQUASHFS_SEARCH)

    @classmethod
    def open(cls, path: Path, *, offset: int = 0, size: int | None = None) -> Self:
        """Open the image in the file `path`, or in `size` bytes of it at `offset` (inside an ISO).

        Raises SquashfsError if it is unreadable, not a squashfs, damaged, or unsupported.
        """
        source = FileSlice.open(path, offset=offset, size=size)
        try:
            return cls._in(source)
        except BaseException:
            source.close()
            raise

    @classmethod
    def within(cls, descriptor: int, path: Path, *, offset: int = 0, size: int | None = None) -> Self:
        """The image in the open file `path`, or in `size` bytes of it at `offset`; it must stay open.

        The image shares the descriptor: do not close it. Raises SquashfsError as `open` does.
        """
        return cls._in(FileSlice.within(descriptor, path, offset=offset, size=size))

    @classmethod
    def _in(cls, source: FileSlice) -> Self:
        raw = source.read(0, min(SIZE, source.size))
        return cls(source, Superblock.parse(raw, available=source.size))

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def codec(self) -> Codec:
        """The codec of its blocks. Raises SquashfsError if this Python lacks the module for it."""
        return codec(self.superblock.compressor, block_size=self.superblock.block_size, options=self.options)

    @cached_property
    def options(self) -> bytes:
        """The compressor options after the superblock, an uncompressed metadata block; empty if there are none."""
        if Flags.COMPRESSOR_OPTIONS not in self.superblock.flags:
            return b""
        header = int.from_bytes(self.source.read(SIZE, 2), "little")
        return self.source.read(SIZE + 2, header & 0x7FFF)

    @cached_property
    def inode_region(self) -> Region:
        """The inode table, which ends where the directory table begins."""
        start, end = self.superblock.inode_table, self.superblock.directory_table
        return Region(self.source, self.codec, start=start, end=end, name="inode")

    @cached_property
    def directory_region(self) -> Region:
        """The directory table, which ends where the next table's blocks begin."""
        following = next(table for table in (self.fragments, self.exports, self.owner_table) if table is not None)
        start = self.superblock.directory_table
        if following.start < start:
            raise corrupt(f"its {following.name} table begins before its directory table")
        return Region(self.source, self.codec, start=start, end=following.start, name="directory")

    def _table(self, listed: int, *, count: int, size: int, name: str) -> Table:
        return Table(self.source, self.codec, listed=listed, end=listed, count=count, size=size, name=name)

    @cached_property
    def fragments(self) -> Table | None:
        """The fragment table; None if there are no fragments."""
        if not self.superblock.fragments or self.superblock.fragment_table is None:
            return None
        return self._table(
            self.superblock.fragment_table, count=self.superblock.fragments, size=content.FRAGMENT.size, name="fragment"
        )

    @cached_property
    def exports(self) -> Table | None:
        """The export table, inode number - 1 -> reference of the inode; None if the image has none."""
        if self.superblock.export_table is None:
            return None
        return self._table(self.superblock.export_table, count=self.superblock.inodes, size=8, name="export")

    @cached_property
    def owner_table(self) -> Table:
        """The table of uids and gids."""
        return self._table(self.superblock.id_table, count=self.superblock.ids, size=_OWNER.size, name="owner")

    @cached_property
    def owners(self) -> list[int]:
        """Uids and gids; inodes store indices into this list."""
        return [_OWNER.unpack(raw)[0] for raw in self.owner_table]

    @cached_property
    def xattr_table(self) -> Xattrs | None:
        """All xattrs; None if the image has none."""
        if self.superblock.xattr_table is None:
            return None
        return Xattrs(self.source, self.codec, position=self.superblock.xattr_table)

    @cached_property
    def root(self) -> Directory:
        """The root directory."""
        return self.directory(self.superblock.root)

    def inode(self, reference: int) -> Inode:
        """The inode at `reference` of the inode table."""
        return inodes.read(self.inode_region.cursor(reference), owners=self.owners)

    def directory(self, reference: int) -> Directory:
        """The directory at `reference`. Raises SquashfsError if it is something else."""
        found = self.inode(reference)
        if not isinstance(found, Directory):
            raise corrupt(f"inode {found.number} is not a directory, but should be")
        return found

    def entries(self, where: Directory) -> Iterator[Entry]:
        """The entries of a directory, sorted by the bytes of their names."""
        if where.size:
            yield from directory.read_listing(self.directory_region.cursor(where.listing), where.size)

    def lookup(self, where: Directory, name: bytes) -> Entry | None:
        """The entry `name` of a directory; None if there is none. Uses the directory's index if it has one.

        Raises LimitError if all look-ups together search too many names.
        """
        if not where.size:
            return None
        reference, skipped = where.listing, 0
        if where.index is not None:
            cursor = self.inode_region.cursor(where.index)
            for at, place, first in inodes.read_index(cursor, where.index_count):
                self._searched.add()
                if first > name:
                    break
                reference, skipped = place << 16 | (where.listing + at) & 0x1FFF, at
        for entry in directory.read_listing(self.directory_region.cursor(reference), where.size - skipped):
            self._searched.add()
            if entry.name >= name:
                return entry if entry.name == name else None
        return None

    def listed(self, where: Directory) -> Iterator[Entry]:
        """Like `entries`, counted like a look-up. Raises LimitError."""
        for entry in self.entries(where):
            self._searched.add()
            yield entry

    def find(self, path: str) -> Inode | None:
        """The inode at `path`, following symlinks within the image; None if there is none."""

        def step(here: Inode, name: bytes) -> Inode | bytes | None:
            entry = self.lookup(here, name) if isinstance(here, Directory) else None
            if entry is None:
                return None
            found = self.inode(entry.reference)
            return found.target if isinstance(found, Symlink) else found

        root: Inode = self.root
        return paths.resolve(paths.encode(path), root, step)

    def walk(self, start: Directory | None = None) -> Iterator[tuple[str, Inode]]:
        """Every path below `start` (by default the root) with its inode, directories before their content.

        Paths have no leading `/`; `start` itself is not included. Raises SquashfsError if a directory occurs twice, and
        LimitError if there are too many names or too deep folders.
        """
        count = Usage(Limit.SQUASHFS_WALK)
        levels: list[tuple[str, Iterator[Entry]]] = [("", self.entries(start or self.root))]
        seen = {(start or self.root).reference}
        while levels:
            prefix, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                levels.pop()
                continue
            path = prefix + paths.decode(entry.name)
            count.add()
            Limit.PATH.check(len(path))
            inode = self.inode(entry.reference)
            if inode.kind is not entry.kind:
                raise corrupt(f"{path} is {entry.kind.name} in its directory and {inode.kind.name} in its inode")
            yield path, inode
            if isinstance(inode, Directory):
                if inode.reference in seen:
                    raise corrupt(f"the directory {path} is in two places, or contains itself")
                seen.add(inode.reference)
                levels.append((path + "/", self.entries(inode)))

    def chunks(self, file: File) -> Iterator[bytes]:
        """A file's content, block by block; holes of a sparse file are zeros."""
        return content.read(
            file,
            source=self.source,
            codec=self.codec,
            block_size=self.superblock.block_size,
            region=self.inode_region,
            fragment=self._fragment,
        )

    def _fragment(self, number: int) -> bytes:
        """The content of a fragment. The last one is cached, because neighbouring files share it."""
        if self._last_fragment[0] != number:
            if self.fragments is None:
                raise corrupt(f"a file's tail is in fragment {number}, but the image has no fragments")
            data = content.read_fragment(
                self.fragments,
                number,
                source=self.source,
                codec=self.codec,
                block_size=self.superblock.block_size,
            )
            self._last_fragment = number, data
        return self._last_fragment[1]

    def read(self, file: File, *, limit: Limit) -> bytes:
        """A file's whole content. Raises LimitError if it exceeds `limit`."""
        limit.check(file.size)
        return b"".join(self.chunks(file))

    def xattrs(self, inode: Inode) -> dict[str, bytes]:
        """An inode's extended attributes."""
        if inode.xattrs is None or self.xattr_table is None:
            return {}
        return self.xattr_table[inode.xattrs]
