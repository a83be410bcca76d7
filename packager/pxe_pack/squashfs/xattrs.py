"""Extended attributes: numbered sets of names and values; an inode stores the number of its set.

Format: doc/format.adoc "Extended Attribute Table"; fs/squashfs/xattr.c, xattr_id.c. Names and values are records in a
metadata region. A value that several sets share may be stored elsewhere in it ("out of line").
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from pxe_pack.image.limits import Limit, Usage
from pxe_pack.squashfs.compress import Codec
from pxe_pack.squashfs.errors import corrupt
from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.squashfs.metadata import Region, TableAppender
from pxe_pack.squashfs.tables import Table

HEADER: Final = struct.Struct("<QII")  # before the list of positions: start of the records, number of sets, unused
PREFIXES: Final = ("user.", "trusted.", "security.")

_RECORD: Final = struct.Struct("<QII")  # of the table: reference of the first name, how many, bytes
RECORD_SIZE: Final = _RECORD.size
_NAME: Final = struct.Struct("<HH")
_VALUE: Final = struct.Struct("<I")
_REFERENCE: Final = struct.Struct("<Q")
_OUT_OF_LINE: Final = 0x100
_PREFIX: Final = 0xFF
LONGEST_NAME: Final = 255  # bytes: XATTR_NAME_MAX
_LONGEST_VALUE: Final = 65_536  # bytes: XATTR_SIZE_MAX of the kernel
_MOST: Final = 65_536  # attributes of one inode: more names than XATTR_LIST_MAX can list


class Xattrs:
    """The xattrs of an image."""

    def __init__(self, source: FileSlice, codec: Codec, *, position: int) -> None:
        """`position` comes from the superblock. Raises SquashfsError if the table there is invalid."""
        start, count, _ = HEADER.unpack(source.read(position, HEADER.size))
        self.table = Table(
            source, codec, end=position, listed=position + HEADER.size, count=count, size=_RECORD.size, name="xattr"
        )
        if not 0 < start <= self.table.start:
            raise corrupt("its xattrs come after their table")
        self.region = Region(source, codec, start=start, end=self.table.start, name="xattr")

    def __getitem__(self, index: int) -> dict[str, bytes]:
        """Set `index`."""
        reference, count, _ = _RECORD.unpack(self.table[index])
        if count > _MOST:
            raise corrupt(f"an inode has {count} xattrs")
        found: dict[str, bytes] = {}
        size = Usage(Limit.SQUASHFS_XATTRS)
        cursor = self.region.cursor(reference)
        for _ in range(count):
            kind, length = _NAME.unpack(cursor.read(_NAME.size))
            name = cursor.read(length).decode("utf-8", "surrogateescape")
            value = cursor.read(self._length(cursor.read(_VALUE.size)))
            if kind & _OUT_OF_LINE:
                if len(value) != _REFERENCE.size:
                    raise corrupt(f"an xattr refers elsewhere with {len(value)} bytes")
                elsewhere = self.region.cursor(_REFERENCE.unpack(value)[0])
                value = elsewhere.read(self._length(elsewhere.read(_VALUE.size)))
            size.add(length + len(value))
            if kind & _PREFIX < len(PREFIXES):  # the kernel ignores other prefixes too
                found[PREFIXES[kind & _PREFIX] + name] = value
        return found

    @staticmethod
    def _length(raw: bytes) -> int:
        (length,) = _VALUE.unpack(raw)
        if length > _LONGEST_VALUE:
            raise corrupt(f"an xattr has a value of {length} bytes")
        return int(length)


class NewXattrs:
    """Sets of xattrs to add to an image, each written once."""

    def __init__(self, old: Xattrs | None, *, empty: Region, codec: Codec | None) -> None:
        """`old` is None for an image without xattrs; `empty` is then the region to append to."""
        self.growth = TableAppender(old.region if old else empty, codec)
        self.records = b""  # of the table
        self._first = old.table.count if old else 0
        self._known: dict[bytes, int] = {}

    def add(self, xattrs: Mapping[str, bytes]) -> int | None:
        """The number of the set `xattrs`; None for an empty one. Names must have passed `unwritable()`."""
        if not xattrs:
            return None
        raw = b"".join(_pack(name, value) for name, value in sorted(xattrs.items()))
        if raw not in self._known:
            self._known[raw] = self._first + len(self._known)
            self.records += _RECORD.pack(self.growth.write(raw), len(xattrs), len(raw))
        return self._known[raw]


def _pack(name: str, value: bytes) -> bytes:
    prefix = next(number for number, prefix in enumerate(PREFIXES) if name.startswith(prefix))
    rest = name.removeprefix(PREFIXES[prefix]).encode("utf-8", "surrogateescape")
    return _NAME.pack(prefix, len(rest)) + rest + _VALUE.pack(len(value)) + value


def unwritable(xattrs: Mapping[str, bytes]) -> str | None:
    """Why a squashfs cannot hold `xattrs`, as the end of a sentence that begins with "it"; None if it can."""
    for name, value in xattrs.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None or len(name) == len(prefix) or "\0" in name:
            return f"has the xattr {name!r}; squashfs supports only names that begin with {', '.join(PREFIXES)}"
        if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME or len(value) > _LONGEST_VALUE:
            return f"has an xattr {name!r} whose name or value is longer than the kernel allows"
    return None
