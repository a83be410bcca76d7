"""The UEFI boot images in an ISO's boot catalog.

Source: El Torito Bootable CD-ROM Format Specification 1.0, 2.1 to 2.4 (all numbers little-endian); UEFI Specification,
13.3.2.1 (platform 0xEF).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from pxe_pack.image.fat import Fat, FatError
from pxe_pack.image.iso.reader import SECTOR, Iso
from pxe_pack.image.limits import Limit, Usage

_RECORD_AT = 17 * SECTOR
_IDENTIFIER = b"EL TORITO SPECIFICATION"
_ENTRY_SIZE = 32
_ENTRIES = SECTOR // _ENTRY_SIZE
_UEFI = 0xEF
_VALIDATION, _HEADER, _LAST_HEADER, _BOOTABLE = 0x01, 0x90, 0x91, 0x88


def efi_images(iso: Iso) -> Iterator[Fat]:
    """The FAT filesystems in which UEFI firmware looks for boot loaders; unreadable ones are skipped.

    Raises LimitError.
    """
    record = os.pread(iso.file.fileno(), SECTOR, _RECORD_AT)
    if len(record) < SECTOR or record[:6] != b"\x00CD001" or not record[7:39].startswith(_IDENTIFIER):
        return
    (catalog,) = struct.unpack_from("<I", record, 0x47)
    data = os.pread(iso.file.fileno(), SECTOR, catalog * SECTOR)
    platform, images = 0, Usage(Limit.BOOT_IMAGES)
    for at in range(0, len(data) - _ENTRY_SIZE + 1, _ENTRY_SIZE):
        kind = data[at]
        if kind in (_VALIDATION, _HEADER, _LAST_HEADER):
            platform = data[at + 1]
        elif kind == _BOOTABLE and platform == _UEFI:
            images.add()
            (sector,) = struct.unpack_from("<I", data, at + 8)
            try:
                yield Fat(lambda offset, size, start=sector * SECTOR: os.pread(iso.file.fileno(), size, start + offset))  # type: ignore[misc]
            except FatError:
                continue
