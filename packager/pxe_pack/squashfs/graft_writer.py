"""Write a graft's new tables: the old tables unchanged, with the new records appended.

No inode moves, so the only listings that change are those of directories that gain or lose a name, and of their parents
up to the root. Each of these gets a new inode and a new listing, both appended, and keeps its inode number. The amount
written depends on what is added, not on the size of the image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from pxe_pack.squashfs import content, directory, graft_record, inodes, paths
from pxe_pack.squashfs.addition import Addition, NewFile, NewSymlink
from pxe_pack.squashfs.content import Stored
from pxe_pack.squashfs.directory import Entry
from pxe_pack.squashfs.errors import unsupported
from pxe_pack.squashfs.image import Image
from pxe_pack.squashfs.inodes import File, Head, Kind
from pxe_pack.squashfs.merge import Branch, Leaf, Merge, Relink
from pxe_pack.squashfs.metadata import Region, TableAppender
from pxe_pack.squashfs.superblock import SIZE, Flags, Superblock
from pxe_pack.squashfs.tables import Table, listing, pieces
from pxe_pack.squashfs.xattrs import HEADER, RECORD_SIZE, NewXattrs

_MOST_OWNERS = 0xFFFF
_MOST_INODES = 0xFFFF_FFFF
_REFERENCE = struct.Struct("<Q")
_OWNER = struct.Struct("<I")


class Sink(Protocol):
    """Destination of the new data: the end of a file, or anything that will follow the old bytes."""

    @property
    def position(self) -> int:
        """The offset of the next byte in the image."""

    def put(self, data: bytes) -> int:
        """Write `data` at the current position and return that position."""


class GraftWriter:
    """Writes the data that follows an image's bytes when `changes` are grafted onto it."""

    def __init__(self, image: Image, changes: Merge) -> None:
        """Writes nothing yet. Raises SquashfsError if the image cannot hold that many inodes or owners."""
        self.image, self.changes = image, changes
        flags = image.superblock.flags
        self._codec = None if Flags.PLAIN_INODES in flags else image.codec
        self.inodes = TableAppender(image.inode_region, self._codec)
        self.listings = TableAppender(image.directory_region, self._codec)
        nothing = Region(image.source, image.codec, start=SIZE, end=SIZE, name="xattr")
        plain = Flags.PLAIN_XATTRS in flags
        self.xattrs = NewXattrs(image.xattr_table, empty=nothing, codec=None if plain else image.codec)

        branches, leaves = changes.branches(), list(changes.leaves())
        self.new_owners: list[int] = []
        self._owners = {owner: index for index, owner in reversed(list(enumerate(image.owners)))}
        for new in (*(branch.addition for branch in branches), *(leaf.addition for leaf in leaves)):
            if new is not None:
                self._know_owners(new)
        self.count = image.superblock.inodes  # inodes in the table, including replaced ones that no name points to
        self._unnamed: list[int] = []  # references of the replaced ones
        self._moved: dict[int, int] = {}  # number -> reference
        self._number(branches, leaves)
        self._branches, self._leaves = branches, leaves

    def _know_owners(self, new: Addition) -> None:
        for owner in (new.uid, new.gid):
            if owner not in self._owners:
                self._owners[owner] = self.image.superblock.ids + len(self.new_owners)
                self.new_owners.append(owner)
        if self.image.superblock.ids + len(self.new_owners) > _MOST_OWNERS:
            raise unsupported(f"with {new.path} the image would have more than {_MOST_OWNERS} different owners")

    def _number(self, branches: list[Branch], leaves: list[Leaf]) -> None:
        """Assign a number to each new inode. A replacement takes the number of the inode it replaces."""
        numbered: list[Branch | Leaf] = [*branches, *leaves]
        for new in numbered:
            if not new.number:
                self.count += 1
                new.number = self.count
        # The table still contains the replaced inodes. Each keeps a number in the export table, so that the
        # superblock's count matches both the table and the numbers.
        self.count += sum(branch.inode is not None for branch in branches)
        self.count += sum(leaf.instead_of is not None for leaf in leaves) + len(self.changes.relinks)
        if self.count > _MOST_INODES:
            raise unsupported(f"the image would have more than {_MOST_INODES} inodes")

    def write(self, sink: Sink, *, mkfs_time: int) -> Superblock:
        """Write data and tables at the sink's position, and return the superblock that points to them."""
        image = self.image
        before = image.superblock
        self._write_content(sink)
        for relink in self.changes.relinks:
            self._relink(relink)
        root = before.root
        for branch in reversed(self._branches):  # children first, because a listing has its inodes' positions
            root = self._write_branch(branch)

        sink.put(graft_record.pack(image))
        inode_table = _put_all(sink, self.inodes.blocks())
        directory_table = _put_all(sink, self.listings.blocks())
        fragment_table = before.fragment_table and sink.position
        if image.fragments:
            fragment_table = _put_table(sink, image.fragments.grown(more=b"", changes={}, codec=None))
        export_table = self._write_exports(sink, image.exports)
        owners = b"".join(map(_OWNER.pack, self.new_owners))
        plain = before.flags & (Flags.PLAIN_IDS | Flags.PLAIN_INODES)
        blocks = image.owner_table.grown(more=owners, changes={}, codec=None if plain else image.codec)
        id_table = _put_table(sink, blocks)
        xattr_table = self._write_xattrs(sink)
        return replace(
            before,
            inodes=self.count,
            mkfs_time=mkfs_time,
            flags=before.flags if xattr_table is None else before.flags & ~Flags.NO_XATTRS,
            ids=before.ids + len(self.new_owners),
            root=root,
            bytes_used=sink.position,
            id_table=id_table,
            xattr_table=xattr_table,
            inode_table=inode_table,
            directory_table=directory_table,
            fragment_table=fragment_table,
            export_table=export_table,
        )

    def _head(self, new: Addition, number: int) -> Head:
        owner = self._owners[new.uid], self._owners[new.gid]
        return Head(mode=new.mode, owner=owner, mtime=new.mtime, number=number)

    def _add_inode(self, pieces_of_it: Iterable[bytes], number: int, *, instead_of: int | None) -> int:
        """Write an inode and return its reference; `instead_of` is the reference of the inode it replaces."""
        reference = self.inodes.reference
        for piece in pieces_of_it:
            self.inodes.write(piece)
        self._moved[number] = reference
        if instead_of is not None:
            self._unnamed.append(instead_of)
        return reference

    def _write_content(self, sink: Sink) -> None:
        """Write the new files' data, and the inodes of all new files and symlinks."""
        superblock = self.image.superblock
        files = [leaf.addition for leaf in self._leaves if isinstance(leaf.addition, NewFile)]
        stored = iter(
            content.write(
                (new.content for new in files),
                put=sink.put,
                block_size=superblock.block_size,
                codec=None if Flags.PLAIN_DATA in superblock.flags else self.image.codec,
            )
        )
        for branch in self._branches:
            for name, leaf in sorted(branch.names.items(), key=lambda pair: pair[0]):
                if isinstance(leaf, Leaf):
                    self._write_leaf(branch, name, leaf, stored)

    def _write_leaf(self, branch: Branch, name: bytes, leaf: Leaf, stored: Iterator[Stored]) -> None:
        head, xattrs = self._head(leaf.addition, leaf.number), self.xattrs.add(leaf.addition.xattrs)
        match leaf.addition:
            case NewSymlink(target=target):
                kind = Kind.SYMLINK
                inode = inodes.pack_symlink(head, target=paths.encode(target), xattrs=xattrs)
            case NewFile():
                kind = Kind.FILE
                one = next(stored)
                inode = inodes.pack_file(
                    head, start=one.start, size=one.size, sparse=one.sparse, blocks=one.blocks, xattrs=xattrs
                )
        reference = self._add_inode([inode], leaf.number, instead_of=leaf.instead_of)
        branch.names[name] = Entry(name, kind, reference, leaf.number)

    def _relink(self, relink: Relink) -> None:
        """Write an inode again with its new link count, and point its remaining names to the copy."""
        old = relink.inode
        blocks = content.block_count(old, self.image.superblock.block_size) if isinstance(old, File) else 0
        cursor = self.image.inode_region.cursor(old.reference)
        copy = inodes.copy_with_links(cursor, old, links=len(relink.places), blocks=blocks)
        reference = self._add_inode(copy, old.number, instead_of=old.reference)
        for branch, entry in relink.places:
            branch.names[entry.name] = replace(entry, reference=reference)

    def _write_branch(self, branch: Branch) -> int:
        """Write a directory's listing and inode, update its parent, and return the inode's reference."""
        old = branch.inode
        directories = 0

        def old_entries() -> Iterator[Entry]:
            nonlocal directories
            for entry in self.image.entries(old) if old else ():
                directories += entry.kind is Kind.DIRECTORY
                yield entry

        new = {name: what for name, what in branch.names.items() if what is None or isinstance(what, Entry)}
        made = directory.write_listing(self.listings, _overlaid(old_entries(), new))
        if old:
            # Producers count links differently (squashfs-tools-ng: every entry), so only adjust by the subdirectories.
            links = max(old.links + made.directories - directories, 2)
            owner = self._owners[old.uid], self._owners[old.gid]
            head = Head(mode=old.mode, owner=owner, mtime=old.mtime, number=old.number)
            xattrs, parent = old.xattrs, old.parent
            if branch.parent is None and parent == self.image.superblock.inodes + 1:
                parent = self.count + 1  # how mksquashfs marks that the root has no parent
        else:
            assert branch.addition is not None  # noqa: S101 - a branch is one or the other
            assert branch.parent is not None  # noqa: S101
            links, parent = made.directories + 2, branch.parent.number
            head, xattrs = self._head(branch.addition, branch.number), self.xattrs.add(branch.addition.xattrs)
        inode = inodes.pack_directory(
            head,
            listing=made.reference,
            size=made.size,
            links=links,
            parent=parent,
            xattrs=xattrs,
            index=made.index,
        )
        reference = self._add_inode([inode], branch.number, instead_of=old.reference if old else None)
        if branch.parent is not None:
            branch.parent.names[branch.name] = Entry(branch.name, Kind.DIRECTORY, reference, branch.number)
        return reference

    def _write_exports(self, sink: Sink, old: Table | None) -> int | None:
        """Write the table of inodes by number: moved ones at their new places, then new ones, then unnamed ones."""
        if old is None:
            return None
        count = self.image.superblock.inodes
        changes = {number - 1: _REFERENCE.pack(self._moved[number]) for number in self._moved if number <= count}
        new = [self._moved[number] for number in sorted(self._moved) if number > count] + self._unnamed
        more = b"".join(map(_REFERENCE.pack, new))
        return _put_table(sink, old.grown(more=more, changes=changes, codec=self._codec))

    def _write_xattrs(self, sink: Sink) -> int | None:
        old, new = self.image.xattr_table, self.xattrs
        if old is None and not new.records:
            return None
        plain = Flags.PLAIN_XATTRS in self.image.superblock.flags
        codec = None if plain else self.image.codec
        start = _put_all(sink, new.growth.blocks())
        blocks = old.table.grown(more=new.records, changes={}, codec=codec) if old else pieces(new.records, codec)
        positions = [sink.put(block) for block in blocks]
        count = (old.table.count if old else 0) + len(new.records) // RECORD_SIZE
        position = sink.put(HEADER.pack(start, count, 0))
        sink.put(listing(positions))
        return position


def _overlaid(entries: Iterable[Entry], changes: Mapping[bytes, Entry | None]) -> Iterator[Entry]:
    """The sorted `entries` with `changes` applied (None removes a name), as a stream."""
    pending = iter(sorted(changes.items()))
    name, new = next(pending, (None, None))
    for entry in entries:
        while name is not None and name < entry.name:
            if new:
                yield new
            name, new = next(pending, (None, None))
        if name == entry.name:
            if new:
                yield new
            name, new = next(pending, (None, None))
        else:
            yield entry
    while name is not None:
        if new:
            yield new
        name, new = next(pending, (None, None))


def _put_all(sink: Sink, blocks: Iterable[bytes]) -> int:
    position = sink.position
    for block in blocks:
        sink.put(block)
    return position


def _put_table(sink: Sink, blocks: Iterable[bytes]) -> int:
    """Write a table's blocks and the list of their positions; returns the position of that list."""
    positions = [sink.put(block) for block in blocks]
    return sink.put(listing(positions))
