"""The image's additional files: everything on its medium that has no part in the boot. The layout serves them.

Image Customizer's name for them (`pxe.additionalFiles`, `iso.additionalFiles`); its documentation of PXE has them in
`other-user-artifacts/`, but they may lie anywhere. A file keeps its path. Not additional are what the layout has anyway
(kernels, initrds and boot loaders that it uses, GRUB's files, the root filesystem), what boots only the medium
(image/medium_boot.py), and on an ISO, updates/, which dracut lays over the root filesystem; in a layout, what an
earlier pack wrote.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pxe_fetch.contract.paths import parents
from pxe_pack.image.bootloader import MediaFile
from pxe_pack.image.grub.config import grub_files
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.image.media import Media, MediaEntry
from pxe_pack.image.medium_boot import MediumBoot
from pxe_pack.layout.layout import find_layout
from pxe_pack.layout.manifest import MANIFEST, SUMS, Kind, path_problem

_MAX_LINKS = 40  # on the way to a file; Linux, MAXSYMLINKS in include/linux/namei.h


@dataclass(frozen=True, kw_only=True, slots=True)
class AdditionalFiles:
    """The additional files of an image."""

    files: Mapping[str, MediaFile] = field(default_factory=dict)  # by path, which is the same in the layout
    left_behind: Mapping[str, str] = field(default_factory=dict)  # path -> why a layout has no use for it
    left_out: tuple[str, ...] = ()  # paths that `leave_out` names
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> paths that cannot be served
    unused: tuple[str, ...] = ()  # patterns of `leave_out` that match nothing

    def left_behind_document(self) -> list[dict[str, str]]:
        """What is left behind, as JSON values."""
        return [{"path": path, "why": why} for path, why in self.left_behind.items()]

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
    behind = MediumBoot(media, kernel_folders={path.rpartition("/")[0] for path in _booted(image)})
    files: dict[str, MediaFile] = {}
    left_behind = _left_behind_before(media)
    left_out: list[str] = []
    refused: dict[str, list[str]] = {}
    unused = set(leave_out)
    for path, entry in sorted(media.entries.items()):
        leads_to = _followed(media, path) if entry.target else entry
        if entry.is_directory or path in boot or _is_update(media, path):
            continue
        if isinstance(leads_to, MediaEntry) and (why := _why_left(leads_to, path, boot, behind)):
            left_behind[path] = why
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
        left_behind=dict(sorted(left_behind.items())),
        left_out=tuple(left_out),
        refused={reason: tuple(paths) for reason, paths in refused.items()},
        unused=tuple(pattern for pattern in leave_out if pattern in unused),
    )


def _booted(image: LiveImage) -> set[str]:
    """The paths on the medium of the kernels and initrds that menu entries boot."""
    return {entry.path for path in image.network.files.values() if (entry := image.media.find(path))}


def _boot_paths(image: LiveImage) -> set[str]:
    """The paths on the medium of what the layout has in another role, or that an earlier pack wrote."""
    media = image.media
    found = {image.grub_source, *(entry.path for entry in grub_files(media).values())} | _booted(image)
    for file in image.loaders.files.values() if image.loaders else ():
        if isinstance(file, MediaFile):
            found.add(file.entry.path)
    if image.live:
        found.add(image.live.root.path if isinstance(media, Iso) else image.iso_path)
    if not isinstance(media, Iso) and (layout := find_layout(media.path)):
        found |= {MANIFEST, SUMS, *(path for path, file in layout.files.items() if file.kind is not Kind.ADDITIONAL)}
    return found


def _why_left(leads_to: MediaEntry, path: str, boot: Collection[str], behind: MediumBoot) -> str | None:
    """Why the file at `path`, which is or leads to the file `leads_to`, is not served; None if it is."""
    why = "the layout has it already" if leads_to.path in boot else behind.why_left(leads_to)
    return f"a link to {leads_to.path}: {why}" if why and leads_to.path != path else why


def _left_behind_before(media: Media) -> dict[str, str]:
    """What an earlier pack left behind, if the image is its layout: it lies on a medium that is not at hand now."""
    layout = None if isinstance(media, Iso) else find_layout(media.path)
    return dict(layout.left_behind) if layout else {}


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
