"""The boot loaders of a layout: which they are, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pxe_pack.image.media import Media, MediaEntry

_PAIRS = {"x86_64": ("bootx64.efi", "grubx64.efi"), "aarch64": ("bootaa64.efi", "grubaa64.efi")}
_FOLDERS = ("efi/boot", "")  # on an ISO; at the top of a pxe-dir


@dataclass(frozen=True, kw_only=True, slots=True)
class BootFile:
    """A file for the layout, and the medium that it lies on."""

    media: Media
    entry: MediaEntry

    @property
    def size(self) -> int:
        return self.entry.size

    def pieces(self) -> Iterator[bytes]:
        """Its content, block by block."""
        return self.media.pieces(self.entry)


@dataclass(frozen=True, kw_only=True, slots=True)
class BootLoaders:
    """What the firmware starts, and what that starts."""

    machine: str  # as `uname -m` says it
    files: Mapping[str, BootFile]  # by their names in the layout


def boot_loaders(media: Media) -> BootLoaders | None:
    """The pair of EFI programs that `media` has; None when it has no pair."""
    for machine, names in _PAIRS.items():
        for folder in _FOLDERS:
            found = {name: media.find(f"{folder}/{name}") for name in names}
            files = {name: BootFile(media=media, entry=entry) for name, entry in found.items() if entry}
            if len(files) == len(names) and all(file.entry.is_file for file in files.values()):
                return BootLoaders(machine=machine, files=files)
    return None
