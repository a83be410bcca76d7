"""Walk the directories of an ISO 9660 image, and name its files as Linux does when it mounts one.

Sources: ECMA-119 (directory records); IEEE P1282 and P1281 (Rock Ridge on SUSP); Linux, fs/isofs. Of its trees, Linux
takes the one with Rock Ridge names, else Joliet's, else that of ISO 9660 alone (isofs_fill_super in inode.c).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pxe_pack.hashing import Span
from pxe_pack.image.iso.descriptors import SECTOR, root_record
from pxe_pack.image.iso.rockridge import Attributes, SystemUseError, read_attributes
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.media import MediaEntry, Names

_DIRECTORY, _ASSOCIATED, _MORE_EXTENTS = 0x02, 0x04, 0x80  # file flags, ECMA-119 9.1.6
_SELF_AND_PARENT = (b"\x00", b"\x01")  # identifiers of "." and "..", ECMA-119 6.8.2.2


class DirectoryError(Exception):
    """A damaged directory; the text says how."""


def read_names(file: BinaryIO, *, size: int, primary: bytes, joliet: bytes | None) -> tuple[Names, bool]:
    """All names in the image `file` of `size` bytes, and whether Linux looks for them case-sensitively.

    `primary` and `joliet` are the descriptors of its trees. Raises DirectoryError and LimitError.
    """
    walk = _Walk(file=file, size=size)
    has_rock_ridge = walk.prepare(root_record(primary))
    if joliet and not has_rock_ridge:
        walk.use_joliet()
    walk.below(root_record(joliet if joliet and not has_rock_ridge else primary))
    return walk.entries, has_rock_ridge or joliet is None


class _Walk:
    """Walks one directory tree of an image."""

    def __init__(self, *, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.entries = Names()
        self._seen: set[int] = set()
        self._directories = Usage(Limit.ISO_DIRECTORIES)
        self._attributes_outside = Usage(Limit.ISO_ATTRIBUTES)
        self._count = Usage(Limit.NAMES)  # also of records that add no name
        self._skip = -1  # bytes to skip at the start of each system use field (SUSP SP); -1: no Rock Ridge
        self._name: Callable[[bytes], str] = _plain_name

    def prepare(self, root: bytes) -> bool:
        """Whether the tree at the record `root` has Rock Ridge names that Linux uses even where there is Joliet."""
        records = list(self._records(self._span(root)))
        # P1281 5.3: the SP entry stands first in the system use field of the root's "." record
        system_use = _system_use(records[0]) if records else b""
        if system_use[:2] == b"SP" and system_use[4:6] == b"\xbe\xef":
            self._skip = system_use[6]
        is_empty = all(_identifier(record) in _SELF_AND_PARENT for record in records)
        return bool(records) and self._attributes(records[0]).extended and not is_empty

    def use_joliet(self) -> None:
        """Take the names for those of Joliet, whose records have no attributes."""
        self._skip, self._name = -1, _joliet_name

    def below(self, root: bytes) -> None:
        """Read the tree below the root directory's record."""
        self._walk(self._span(root), prefix="", depth=0)

    def _walk(self, directory: Span, *, prefix: str, depth: int) -> None:
        Limit.DEPTH.check(depth)
        if directory.offset in self._seen:
            raise DirectoryError("its directories form a loop")
        self._seen.add(directory.offset)
        spans: list[Span] = []
        for record in self._records(directory):
            flags, identifier = record[25], _identifier(record)
            if identifier in _SELF_AND_PARENT or flags & _ASSOCIATED:
                continue
            spans.append(self._span(record))
            Limit.ISO_EXTENTS.check(len(spans))
            if flags & _MORE_EXTENTS:
                continue
            attributes = self._attributes(record)
            if attributes.relocated:  # moved here because of the depth limit; it belongs where its CL entry is
                spans = []
                continue
            name = attributes.name or self._name(identifier)
            if name in ("", ".", "..") or "/" in name or "\0" in name:  # it would escape its directory
                raise DirectoryError(f"a file in it has the name {name!r}")
            path = prefix + name
            directory_bit = bool(flags & _DIRECTORY)
            if attributes.child is not None:
                spans, directory_bit = [self._relocated(attributes.child)], True
            self._add(path, spans=tuple(spans), attributes=attributes, is_directory=directory_bit)
            if directory_bit:
                self._walk(spans[0], prefix=f"{path}/", depth=depth + 1)
            spans = []

    def _add(self, path: str, *, spans: tuple[Span, ...], attributes: Attributes, is_directory: bool) -> None:
        if attributes.compressed:
            raise DirectoryError(f"{path} is compressed (zisofs), which is not supported")
        mode = attributes.mode or (stat.S_IFDIR | 0o555 if is_directory else stat.S_IFREG | 0o444)
        self.entries.add(
            MediaEntry(
                path=path,
                mode=mode,
                size=sum(span.size for span in spans) if stat.S_ISREG(mode) else 0,
                spans=spans,
                uid=attributes.uid,
                gid=attributes.gid,
                target=attributes.target,
            )
        )

    def _attributes(self, record: bytes) -> Attributes:
        if self._skip < 0:
            return Attributes()
        try:
            return read_attributes(_system_use(record)[self._skip :], self._sector_bytes)
        except SystemUseError as error:
            raise DirectoryError(str(error)) from error

    def _relocated(self, sector: int) -> Span:
        """The extent of a relocated directory (P1282 4.1.5.1), whose "." record has the size."""
        return self._span(next(self._records(Span(offset=sector * SECTOR, size=SECTOR)), b""))

    def _records(self, directory: Span) -> Iterator[bytes]:
        Limit.ISO_DIRECTORY.check(directory.size)
        self._directories.add(directory.size)
        data = self._bytes(directory)
        at = 0
        while at < len(data):
            length = data[at]
            if length == 0:  # no record crosses a sector: the rest of this one is padding
                at = (at // SECTOR + 1) * SECTOR
                continue
            record = data[at : at + length]
            if length < 34 or len(record) < length or record[32] + 33 > length:  # noqa: PLR2004  ECMA-119 9.1
                raise DirectoryError("a directory record is damaged")
            self._count.add()
            yield record
            at += length

    def _span(self, record: bytes) -> Span:
        if len(record) < 34:  # noqa: PLR2004  ECMA-119 9.1
            raise DirectoryError("a directory record is damaged")
        sector, size = struct.unpack_from("<I4xI", record, 2)
        span = Span(offset=(sector + record[1]) * SECTOR, size=size)
        if span.offset + span.size > self.size and span.size:
            raise DirectoryError("a file in it extends beyond the end")
        return span

    def _sector_bytes(self, sector: int, offset: int, size: int) -> bytes:
        self._attributes_outside.add(size)
        return self._bytes(Span(offset=sector * SECTOR + offset, size=size))

    def _bytes(self, span: Span) -> bytes:
        data = os.pread(self.file.fileno(), span.size, span.offset)
        if len(data) < span.size:
            raise DirectoryError("a directory in it is truncated")
        return data


def _identifier(record: bytes) -> bytes:
    return record[33 : 33 + record[32]]


def _system_use(record: bytes) -> bytes:
    if not record:
        return b""
    end = 33 + record[32]
    return record[end + (end & 1) :]


def _plain_name(identifier: bytes) -> str:
    """A name of ISO 9660 without Rock Ridge, as Linux shows it (isofs_name_translate in dir.c; `map=normal`)."""
    name = identifier.partition(b"\0")[0].lower()
    name = name.removesuffix(b".;1") if name.endswith(b".;1") else name.removesuffix(b";1")
    return os.fsdecode(name.replace(b";", b".").replace(b"/", b"."))


def _joliet_name(identifier: bytes) -> str:
    """A name in a Joliet tree, as Linux shows it (get_joliet_filename in joliet.c)."""
    name = identifier.decode("utf-16-be", "replace").partition("\0")[0]
    if len(name) > len(";1"):
        name = name.removesuffix(";1")
    return name[:1] + name[1:].rstrip(".")
