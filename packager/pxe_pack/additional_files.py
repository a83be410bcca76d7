"""The image's additional files: everything on its medium that has no part in the boot. The layout serves them.

Image Customizer's name for them (`pxe.additionalFiles`, `iso.additionalFiles`); its documentation of PXE has them in
`other-user-artifacts/`, but they may lie anywhere. A file keeps its path. No part in the boot means: neither the root
filesystem, nor a kernel or initrd of a menu entry, nor one of these, by name:

- other kernels and initrds in boot/, or beside those of the menu entries (kernel-install(8) and Debian's names);
- UEFI boot loaders (UEFI Specification, 3.5.1.1; shim, Make.defaults: the names of shim, MokManager and fallback);
- GRUB's configuration and environment, Boot Loader Specification entries, the images in the El Torito boot catalog;
- the folders isolinux/ and syslinux/, which only BIOS boots;
- on an ISO, updates/, which dracut lays over the root filesystem; in a layout, what an earlier pack wrote.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pxe_fetch.contract.paths import parents
from pxe_pack.image.bootloader import MediaFile
from pxe_pack.image.grub.config import grub_files
from pxe_pack.image.iso import eltorito
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.image.media import Media, MediaEntry
from pxe_pack.layout.layout import find_layout
from pxe_pack.layout.manifest import MANIFEST, SUMS, Kind, path_problem

_KERNEL = re.compile(r"(?:vmlinuz|vmlinux|bzimage|initrd|initramfs)(?:[-._].*)?", re.IGNORECASE)
_MAX_LINKS = 40  # on the way to a file; Linux, MAXSYMLINKS in include/linux/namei.h
_BOOT_FILE = re.compile(
    r"""(?:efi/[^/]+/)?
          (?:(?:boot|grub|gcd|grubnet|shim|mm|fb|systemd-boot)(?:x64|ia32|aa64|arm|riscv64|loongarch64)?
             |mokmanager|fallback)\.efi
      | efi/[^/]+/boot[^/]*\.csv                                        # fallback's list of boot entries
      | (?:(?:boot/grub2?|grub2?|efi/[^/]+)/(?:.+/)?)?(?:grub|grub-pxe)\.cfg
      | (?:boot/grub2?|efi/[^/]+)/(?:grubenv|(?:.+/)?(?:efiboot|efi)\.img)
      | (?:boot/)?loader/entries/[^/]+\.conf
      | (?:boot/)?(?:isolinux|syslinux)/.+
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdditionalFiles:
    """The additional files of an image."""

    files: Mapping[str, MediaFile] = field(default_factory=dict)  # by path, which is the same in the layout
    left_out: tuple[str, ...] = ()  # paths that `leave_out` names
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> paths that cannot be served
    unused: tuple[str, ...] = ()  # patterns of `leave_out` that match nothing

    @property
    def size(self) -> int:
        """Bytes in all of them."""
        return sum(file.size for file in self.files.values())


def find_additional(image: LiveImage, *, leave_out: Sequence[str] = ()) -> AdditionalFiles:
    """The additional files of `image` except those that match a pattern of `leave_out`.

    Patterns are those of fnmatch(3) without flags, for the whole path: `*` matches `/` too. One that matches a folder
    stands for everything in it. A link stands for the file it leads to, also if that has a part in the boot. Raises
    InputError if the medium is a layout that cannot be trusted.
    """
    if image.rootfs_source:  # the medium was made from it, and has nothing else
        return AdditionalFiles()
    media = image.media
    boot = _boot_paths(image)
    files: dict[str, MediaFile] = {}
    left_out: list[str] = []
    refused: dict[str, list[str]] = {}
    unused = set(leave_out)
    for path, entry in sorted(media.entries.items()):
        leads_to = _followed(media, path) if entry.target else entry
        names = {path, leads_to.path} if isinstance(leads_to, MediaEntry) else {path}
        if entry.is_directory or names & boot or any(map(_BOOT_FILE.fullmatch, names)) or _is_update(media, path):
            continue
        if matching := [pattern for pattern in leave_out if _matches(path, pattern)]:
            left_out.append(path)
            unused -= {*matching}
            continue
        found = leads_to if stat.S_ISLNK(entry.mode) else entry  # a Folder has followed links already
        if reason := _unservable(media, path, found):
            refused.setdefault(reason, []).append(path)
        elif isinstance(found, MediaEntry):
            files[path] = MediaFile(media=media, entry=found)
    return AdditionalFiles(
        files=files,
        left_out=tuple(left_out),
        refused={reason: tuple(paths) for reason, paths in refused.items()},
        unused=tuple(pattern for pattern in leave_out if pattern in unused),
    )


def _boot_paths(image: LiveImage) -> set[str]:
    """The paths on the medium that have a part in the boot, or that an earlier pack wrote."""
    media = image.media
    found = {image.grub_source, *(entry.path for entry in grub_files(media).values())}
    used = {entry.path for path in image.network.files.values() if (entry := media.find(path))}
    folders = {"boot", *(path.rpartition("/")[0] for path in used)}
    found |= used
    for entry in media.entries.values():
        if entry.path.rpartition("/")[0] in folders and _KERNEL.fullmatch(entry.name):
            found.add(entry.path)
    for file in image.loaders.files.values() if image.loaders else ():
        if isinstance(file, MediaFile):
            found.add(file.entry.path)
    if image.live:
        found.add(image.live.root.path if isinstance(media, Iso) else image.iso_path)
    if isinstance(media, Iso):
        return found | _in_boot_catalog(media)
    if layout := find_layout(media.path):
        found |= {MANIFEST, SUMS, *(path for path, file in layout.files.items() if file.kind is not Kind.ADDITIONAL)}
    return found


def _in_boot_catalog(iso: Iso) -> set[str]:
    catalog = eltorito.boot_catalog(iso)
    if catalog is None:
        return set()
    starts = {sector * SECTOR for sector in (catalog.sector, *(sector for _, sector in catalog.images))}
    return {path for path, entry in iso.entries.items() if entry.size and entry.spans[0].offset in starts}


def _is_update(media: Media, path: str) -> bool:
    return isinstance(media, Iso) and path.startswith(f"{UPDATES}/")


def _matches(path: str, pattern: str) -> bool:
    plain = pattern.strip("/")
    patterns = {plain, plain.removeprefix("**/"), plain.replace("/**/", "/")}
    return any(fnmatchcase(name, one) for name in (path, *parents(path)) for one in patterns)


def _followed(media: Media, path: str) -> MediaEntry | str:
    """The file to which the link at `path` leads; the reason if there is none."""
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                return "a link that leads out of the image"
            done.pop()
            continue
        entry = media.entries.get("/".join([*done, part]))
        if entry is None:
            return "a link to a file that does not exist"
        done.append(part)
        if entry.target:
            links += 1
            if links > _MAX_LINKS:
                return "a link that leads to itself"
            if entry.target.startswith("/"):
                return "a link that leads out of the image"
            done.pop()
            todo += entry.target.split("/")[::-1]
    found = media.entries["/".join(done)] if done else None
    return (
        found if found and not found.is_directory else "a link to a folder, whose files are served at their own paths"
    )


def _unservable(media: Media, path: str, found: MediaEntry | str) -> str | None:
    """Why the file at `path` cannot be served, for people; None if it can."""
    if reason := path_problem(path):
        return f"a name that {reason}"
    if isinstance(found, str):
        return found
    if not found.is_file:
        return "not a regular file"
    if not isinstance(media, Iso) and not os.access(media.path / found.path, os.R_OK):
        return "not readable"
    return None
