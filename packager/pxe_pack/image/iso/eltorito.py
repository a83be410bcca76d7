"""The boot images in an ISO's boot catalog.

Source: El Torito Bootable CD-ROM Format Specification 1.0, 2.1 to 2.4 (all numbers little-endian); UEFI Specification,
13.3.2.1 (platform 0xEF).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pxe_pack.image.fat import Fat, FatError
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.limits import Limit, Usage

_RECORD_AT = 17 * SECTOR
_IDENTIFIER = b"EL TORITO SPECIFICATION"
_ENTRY_SIZE = 32
_UEFI = 0xEF
_VALIDATION, _HEADER, _LAST_HEADER, _BOOTABLE = 0x01, 0x90, 0x91, 0x88


@dataclass(frozen=True, kw_only=True, slots=True)
class BootCatalog:
    """Where the boot images lie, in sectors."""

    sector: int  # of the catalog itself
    images: tuple[tuple[int, int], ...]  # (platform, sector) of each bootable image


def boot_catalog(iso: Iso) -> BootCatalog | None:
    """The image's boot catalog; None if it has none."""
    record = os.pread(iso.file.fileno(), SECTOR, _RECORD_AT)
    if len(record) < SECTOR or record[:6] != b"\x00CD001" or not record[7:39].startswith(_IDENTIFIER):
        return None
    (catalog,) = struct.unpack_from("<I", record, 0x47)
    data = os.pread(iso.file.fileno(), SECTOR, catalog * SECTOR)
    platform = 0
    images = []
    for at in range(0, len(data) - _ENTRY_SIZE + 1, _ENTRY_SIZE):
        kind = data[at]
        if kind in (_VALIDATION, _HEADER, _LAST_HEADER):
            platform = data[at + 1]
        elif kind == _BOOTABLE:
            images.append((platform, struct.unpack_from("<I", data, at + 8)[0]))
    return BootCatalog(sector=catalog, images=tuple(images))


def efi_images(iso: Iso) -> Iterator[Fat]:
    """The FAT filesystems in which UEFI firmware looks for boot loaders; unreadable ones are skipped.

    Raises LimitError.
    """
    catalog, images = boot_catalog(iso), Usage(Limit.BOOT_IMAGES)
    for platform, sector in catalog.images if catalog else ():
        if platform == _UEFI:
            images.add()
            try:
                yield Fat(lambda offset, size, start=sector * SECTOR: os.pread(iso.file.fileno(), size, start + offset))  # type: ignore[misc]
            except FatError:
                continue
