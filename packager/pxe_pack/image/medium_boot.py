"""What boots a medium itself, and has no use in a layout. Known by its place and its content, never by its name alone.

- UEFI boot loaders where firmware, shim and fallback look for them, and fallback's list of boot entries (UEFI
  Specification, 3.5.1.1; shim, Make.defaults and fallback.c);
- GRUB's configuration and environment, and the entries that its `blscfg` reads (Boot Loader Specification);
- the images in the El Torito boot catalog, the catalog, and the FAT image of a pxe-dir's former ISO;
- SYSLINUX's programs and configuration (SYSLINUX, doc/isolinux.txt), which only BIOS boots;
- kernels and initrds in boot/, beside those of the menu entries, or beside SYSLINUX, that no menu entry boots
  (kernel-install(8) and Debian's names).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pxe_pack.image import kernel
from pxe_pack.image.initrd.cpio import begins_initrd
from pxe_pack.image.iso import eltorito
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.media import Media, MediaEntry
from pxe_pack.image.pe.program import is_program

_HEAD = 4096  # bytes of a file that are looked at
_BIOS = re.compile(r"(?:boot/)?(?:isolinux|syslinux)")
_KERNEL = re.compile(r"(?:vmlinuz|vmlinux|bzimage|linux)(?:[-._].*)?")
_INITRD = re.compile(r"(?:initrd|initramfs)(?:[-._].*)?")
_NOT_BOOTED = "no menu entry boots it"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Role:
    path: re.Pattern[str]  # in lower case
    content: Callable[[bytes], bool]  # of its first bytes
    why: str


def _anything(_head: bytes) -> bool:
    return True


_ROLES = (
    _Role(
        path=re.compile(
            r"""(?:efi/[^/]+/)?
                (?:(?:boot|grub|gcd|grubnet|shim|mm|fb|systemd-boot)(?:x64|ia32|aa64|arm|riscv64|loongarch64)?
                   |mokmanager|fallback)\.efi""",
            re.VERBOSE,
        ),
        content=is_program,
        why="a boot loader that the layout does not use",
    ),
    _Role(
        path=re.compile(r"efi/[^/]+/boot[^/]*\.csv"),
        content=lambda head: head.startswith(b"\xff\xfe"),  # UCS-2 with a byte order mark
        why="the list of boot loaders for an installed system",
    ),
    _Role(
        path=re.compile(r"(?:(?:boot/)?grub2?/|efi/[^/]+/)?grub\.cfg|boot/grub2?/grub-pxe\.cfg"),
        content=_anything,
        why="GRUB's configuration for the medium; the layout has its own",
    ),
    _Role(
        path=re.compile(r"efi/[^/]+/grubenv"),
        content=lambda head: head.startswith(b"# GRUB Environment Block"),
        why="GRUB's variables for the medium",
    ),
    _Role(
        path=re.compile(r"(?:boot/)?loader/entries/[^/]+\.conf"),
        content=_anything,
        why="a boot entry of the medium; the layout has its entries in grub.cfg",
    ),
    _Role(
        path=re.compile(r"boot/grub2?/(?:efiboot|efi)\.img"),
        content=lambda head: head[510:512] == b"\x55\xaa",  # a FAT's boot sector
        why="the boot image of the medium",
    ),
    _Role(
        path=re.compile(rf"{_BIOS.pattern}/(?:isolinux\.bin|boot\.cat|ldlinux\.sys|[^/]+\.(?:c32|cfg|msg|lss))"),
        content=_anything,
        why="only BIOS boots it",
    ),
)


class MediumBoot:
    """Finds what boots a medium itself. `kernel_folders` are those with the kernels of its menu entries."""

    def __init__(self, media: Media, *, kernel_folders: Collection[str]) -> None:
        self._media = media
        self._kernel_folders = {folder.lower() for folder in kernel_folders} | {"boot"}
        self._catalog = _in_boot_catalog(media) if isinstance(media, Iso) else {}

    def why_left(self, entry: MediaEntry) -> str | None:
        """Why a layout has no use for the file `entry`, for people; None if it is the user's."""
        if entry.path in self._catalog:
            return self._catalog[entry.path]
        path = entry.path.lower()
        folder, _, name = path.rpartition("/")
        role = next((one for one in _ROLES if one.path.fullmatch(path)), None)
        if role and role.content(self._head(entry)):
            return role.why
        if folder in self._kernel_folders or _BIOS.fullmatch(folder):
            if _KERNEL.fullmatch(name) and kernel.begins_kernel(self._head(entry)):
                return f"a kernel, but {_NOT_BOOTED}"
            if _INITRD.fullmatch(name) and begins_initrd(self._head(entry)):
                return f"an initrd, but {_NOT_BOOTED}"
        return None

    def _head(self, entry: MediaEntry) -> bytes:
        return self._media.read(entry, size=min(entry.size, _HEAD)) if entry.is_file else b""


def _in_boot_catalog(iso: Iso) -> Mapping[str, str]:
    catalog = eltorito.boot_catalog(iso)
    if catalog is None:
        return {}
    why = dict.fromkeys((sector * SECTOR for _, sector in catalog.images), "the boot image of the medium")
    why[catalog.sector * SECTOR] = "the boot catalog of the medium"
    return {
        path: why[entry.spans[0].offset]
        for path, entry in iso.entries.items()
        if entry.size and entry.spans and entry.spans[0].offset in why
    }
