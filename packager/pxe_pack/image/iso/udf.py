"""Whether an ISO has a UDF file system beside ISO 9660.

Such an image (a "bridge") has two directory trees for the same files. blkid says `udf` of it, and by that dracut's
dmsquash-live-root mounts it, so a node sees nothing of what is added to the other tree.

Source: ECMA-167, 2/8.3 and 2/9 (volume structure descriptors, from byte 32,768 on: BEA01, NSR02 or NSR03, TEA01),
3/8.4.2.1 and 3/10.2 (the anchor at sector 256, or 256 before the last, or the last), 3/7.2 (tags); util-linux, udf.c.
"""

from __future__ import annotations

import os
import struct

from pxe_pack.image.iso.reader import SECTOR, Iso

_SEQUENCE_AT = 16  # sectors
_DESCRIPTORS = 64  # more of them are not looked at
_UDF = frozenset({b"NSR02", b"NSR03"})
_KNOWN = frozenset({b"CD001", b"CDW02", b"BOOT2", b"BEA01", b"TEA01", *_UDF})
_ANCHOR = 2  # identifier of its tag
_TAG = struct.Struct("<HHBxHHHI")  # identifier, version, checksum, serial number, CRC, its length, location


def has_udf(iso: Iso) -> bool:
    """Whether blkid takes `iso` for UDF."""
    return _is_announced(iso) and any(_is_anchor(iso, sector) for sector in _anchors(iso))


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
