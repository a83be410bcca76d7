"""A UDF file system beside ISO 9660: whether an ISO has one, and where a file in it lies.

Such an image (a "bridge") has two directory trees, mostly for the same files. blkid says `udf` of it, and by that
dracut's dmsquash-live-root mounts it, so a node sees nothing of what is in the other tree only.

Source: ECMA-167, 2/8.3 and 2/9 (volume structure descriptors, from byte 32,768 on: BEA01, NSR02 or NSR03, TEA01),
3/8.4.2.1 and 3/10.2 (the anchor at sector 256, or 256 before the last, or the last), 3/7.2 (tags), 3/10.5 and 3/10.6
(partition, logical volume), 4/14.1, 4/14.4 and 4/14.9 (file set, file identifier, file entry), 4/14.14 (extents);
util-linux, udf.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pxe_pack.hashing import Span
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import Iso

_SEQUENCE_AT = 16  # sectors
_DESCRIPTORS = 64  # more of them are not looked at
_UDF = frozenset({b"NSR02", b"NSR03"})
_KNOWN = frozenset({b"CD001", b"CDW02", b"BOOT2", b"BEA01", b"TEA01", *_UDF})
# identifiers of tags
_ANCHOR, _PARTITION, _LOGICAL_VOLUME, _TERMINATOR = 2, 5, 6, 8
_FILE_SET, _FILE_IDENTIFIER, _FILE_ENTRY, _EXTENDED_ENTRY = 256, 257, 261, 266
_SEQUENCE_LIMIT = 64  # volume descriptors
_DIRECTORY_LIMIT = 1 << 20  # bytes
_PARENT, _DELETED = 0x08, 0x04  # characteristics of a file identifier
_TAG = struct.Struct("<HHBxHHHI")  # identifier, version, checksum, serial number, CRC, its length, location


def has_udf(iso: Iso) -> bool:
    """Whether blkid takes `iso` for UDF."""
    return _is_announced(iso) and any(_is_anchor(iso, sector) for sector in _anchors(iso))


def udf_span(iso: Iso, path: str) -> Span | None:
    """Where the file at `path` lies; None if UDF has no such file, in one piece, or if it is damaged."""
    try:
        volume = _volume(iso)
        entry = _follow(volume, volume.root, path.split("/"))
        extents = _extents(volume, entry)
    except (struct.error, LookupError):
        return None
    adjacent = all(one.offset + one.size == two.offset for one, two in pairwise(extents))
    return Span(offset=extents[0].offset, size=sum(one.size for one in extents)) if extents and adjacent else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Volume:
    iso: Iso
    start: int  # of the partition, in sectors
    root: int  # the block of the root directory's entry, in the partition

    def block(self, number: int, size: int = SECTOR) -> bytes:
        return _read(self.iso, self.start + number, size)


def _volume(iso: Iso) -> _Volume:
    """The volume with its partition. Raises LookupError or struct.error if it is damaged."""
    anchor = next(sector for sector in _anchors(iso) if _is_anchor(iso, sector))
    size, first = struct.unpack_from("<II", _read(iso, anchor, SECTOR), 16)
    start = root = None
    for sector in range(first, first + min(size // SECTOR, _SEQUENCE_LIMIT)):
        descriptor = _read(iso, sector, SECTOR)
        (identifier,) = struct.unpack_from("<H", descriptor)
        if identifier == _PARTITION:
            (start,) = struct.unpack_from("<I", descriptor, 188)
        elif identifier == _LOGICAL_VOLUME:
            (root,) = struct.unpack_from("<I", descriptor, 252)  # of the file set
        elif identifier == _TERMINATOR:
            break
    if start is None or root is None:
        raise LookupError
    file_set = _read(iso, start + root, SECTOR)
    identifier, block = struct.unpack_from("<H", file_set)[0], struct.unpack_from("<I", file_set, 404)[0]
    if identifier != _FILE_SET:
        raise LookupError
    return _Volume(iso=iso, start=start, root=block)


def _follow(volume: _Volume, block: int, names: Sequence[str]) -> int:
    """The block of the entry that `names` lead to. Raises LookupError or struct.error."""
    for name in names:
        block = _children(volume, block)[name]
    return block


def _children(volume: _Volume, block: int) -> dict[str, int]:
    """The entries of a directory: name -> block."""
    extents = _extents(volume, block)
    if sum(one.size for one in extents) > _DIRECTORY_LIMIT:
        raise LookupError
    data = b"".join(os.pread(volume.iso.file.fileno(), one.size, one.offset) for one in extents)
    found: dict[str, int] = {}
    at = 0
    while at < len(data):
        identifier, traits, length, child, used = struct.unpack_from("<H16xBB4xI8xH", data, at)
        if identifier != _FILE_IDENTIFIER:
            break
        text = data[at + 38 + used : at + 38 + used + length]
        if not traits & (_PARENT | _DELETED):
            found[text[1:].decode("latin-1" if text[:1] == b"\x08" else "utf-16-be", "replace")] = child
        at += (38 + used + length + 3) & ~3
    return found


def _extents(volume: _Volume, block: int) -> list[Span]:
    """The extents of a file or a directory; none if its content is in the entry. Raises LookupError or struct.error."""
    entry = volume.block(block)
    (identifier,) = struct.unpack_from("<H", entry)
    base = {_FILE_ENTRY: 176, _EXTENDED_ENTRY: 216}[identifier]
    flags, (size,) = struct.unpack_from("<H", entry, 34)[0], struct.unpack_from("<Q", entry, 56)
    attributes, length = struct.unpack_from("<II", entry, base - 8)
    wide = {0: False, 1: True}[flags & 7]
    found: list[Span] = []
    for at in range(base + attributes, base + attributes + length, 16 if wide else 8):
        extent, position = struct.unpack_from("<II", entry, at)
        used = min(extent & 0x3FFFFFFF, size - sum(one.size for one in found))
        if used > 0:
            found.append(Span(offset=(volume.start + position) * SECTOR, size=used))
    return found


def _is_announced(iso: Iso) -> bool:
    """Whether the volume recognition sequence has a descriptor of UDF's."""
    for sector in range(_SEQUENCE_AT, _SEQUENCE_AT + _DESCRIPTORS):
        identifier = _read(iso, sector, 6)[1:]
        if identifier in _UDF:
            return True
        if identifier not in _KNOWN:
            break
    return False


def _anchors(iso: Iso) -> tuple[int, ...]:
    last = iso.size // SECTOR - 1
    return 256, last - 256, last


def _is_anchor(iso: Iso, sector: int) -> bool:
    tag = _read(iso, sector, _TAG.size)
    if sector < 0 or len(tag) < _TAG.size:
        return False
    identifier, _, checksum, _, _, _, location = _TAG.unpack(tag)
    return bool(identifier == _ANCHOR and location == sector and checksum == (sum(tag) - tag[4]) % 256)


def _read(iso: Iso, sector: int, size: int) -> bytes:
    return os.pread(iso.file.fileno(), size, sector * SECTOR) if sector >= 0 else b""
