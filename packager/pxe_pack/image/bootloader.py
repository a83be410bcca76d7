"""Find UEFI boot loaders by content: the program that the firmware starts, and the GRUB that it starts in turn.

On a medium they are in its tree, at the top of a pxe-dir, or in the FAT image listed by El Torito. GRUB's built-in
modules and script show whether it can boot over the network. Source: shim, netboot.c and Make.defaults (DEFAULT_LOADER,
the name of the program it starts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pxe_pack.image.fat import Fat, FatError
from pxe_pack.image.grub import netboot
from pxe_pack.image.grub.efi_image import GrubImage, read_grub
from pxe_pack.image.grub.netboot import Netboot
from pxe_pack.image.iso import eltorito
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.media import Media, MediaEntry
from pxe_pack.image.pe.program import PeError, read_program

# `uname -m` -> suffix in the names of UEFI programs (UEFI Specification, 3.5.1.1)
SUFFIXES: Mapping[str, str] = {"x86_64": "x64", "aarch64": "aa64"}
_GRUBS = tuple(f"grub{suffix}.efi" for suffix in SUFFIXES.values())
_SECOND = "grub.efi"  # the name that some distributions' shims start


class BootFile(Protocol):
    """A file for the layout, on a medium or in memory."""

    @property
    def size(self) -> int:
        """Its size in bytes."""

    def pieces(self) -> Iterator[bytes]:
        """Its content, block by block. Raises OSError, and LimitError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFile:
    """A file on a medium."""

    media: Media
    entry: MediaEntry

    @property
    def size(self) -> int:
        return self.entry.size

    def pieces(self) -> Iterator[bytes]:
        return self.media.pieces(self.entry)


@dataclass(frozen=True, kw_only=True, slots=True)
class FatFile:
    """A file in a FAT filesystem on a medium."""

    fat: Fat
    path: str
    size: int

    def pieces(self) -> Iterator[bytes]:
        yield self.fat.read(self.path) or b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """A file held in memory."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        yield self.data


@dataclass(frozen=True, kw_only=True, slots=True)
class BootLoaders:
    """The program that the firmware starts, and the GRUB that it starts."""

    machine: str  # as in `uname -m`
    files: Mapping[str, BootFile]  # by name in a layout
    origin: str  # where they come from, for the user
    netboot: Netboot  # how they behave over the network
    grub: GrubImage

    @property
    def redirector(self) -> dict[str, str]:
        """The files (path -> text) that point their GRUB to the layout's grub.cfg: where it looks over TFTP and HTTP.

        Empty if it cannot boot over the network.
        """
        if not self.netboot.config:
            return {}
        looked_at = {self.netboot.config, netboot.HTTP_CONFIG}
        return {path.lstrip("/"): text for path in sorted(looked_at) if (text := netboot.redirector(path))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A UEFI program, examined as far as pairing needs."""

    name: str  # in lower case
    machine: str
    grub: GrubImage | None  # None: it is not GRUB
    file: BootFile
    starts: frozenset[str]  # names of GRUB in it: a shim starts the program that it names


def program(name: str, data: bytes, file: BootFile | None = None) -> Program | None:
    """The UEFI program in `data`, a whole file; None if it is not one."""
    try:
        machine = read_program(data).machine
    except PeError:
        return None
    starts = frozenset(one for one in (_SECOND, *_GRUBS) if one.encode() in data)
    return Program(
        name=name.lower(), machine=machine, grub=read_grub(data), file=file or Content(data=data), starts=starts
    )


def paired(programs: Sequence[Program], *, machine: str, origin: str) -> BootLoaders | None:
    """The best pair among the programs of one folder: a shim and the GRUB it starts, or one GRUB in both roles.

    None if there is no GRUB for `machine`.
    """
    suffix = SUFFIXES.get(machine, "")
    ours = [one for one in programs if one.machine == machine]
    shim = next((one for one in ours if one.grub is None and one.name.startswith(("boot", "shim"))), None)
    grubs = [(one, one.grub, netboot.over_network(one.grub)) for one in ours if one.grub]
    # prefer one that can boot over the network, then the one that a shim would start
    grubs.sort(key=lambda found: (bool(found[2].obstacle), found[0].name != f"grub{suffix}.efi"))
    if not grubs or not suffix:
        return None
    grub, inside, judged = grubs[0]
    files = {f"boot{suffix}.efi": (shim or grub).file, f"grub{suffix}.efi": grub.file}
    if shim and _SECOND in shim.starts and f"grub{suffix}.efi" not in shim.starts:
        files[_SECOND] = grub.file
    return BootLoaders(machine=machine, files=files, origin=origin, netboot=judged, grub=inside)


def boot_loaders(media: Media) -> BootLoaders | None:
    """The boot loaders on `media`, preferably ones that can boot over the network; None if it has none.

    Raises LimitError.
    """
    found: list[BootLoaders] = []
    for programs in _folders(media):
        for machine in SUFFIXES:
            if pair := paired(programs, machine=machine, origin="the image's own"):
                if not pair.netboot.obstacle:
                    return pair
                found.append(pair)
    return found[0] if found else None


def _folders(media: Media) -> Iterator[list[Program]]:
    """The programs of each folder that may contain boot loaders."""
    folders: dict[str, list[MediaEntry]] = {"efi/boot": [], "": []}
    count, size = Usage(Limit.LOADERS), Usage(Limit.LOADERS_SIZE)
    for path, entry in sorted(media.entries.items()):
        folder, _, name = path.lower().rpartition("/")
        relevant = folder in folders or folder.startswith("efi/")
        if entry.is_file and name.endswith(".efi") and relevant and entry.size <= Limit.LOADER_SIZE.most:
            count.add()
            size.add(entry.size)
            folders.setdefault(folder, []).append(entry)
    for entries in folders.values():
        found = (program(one.name, media.read(one), MediaFile(media=media, entry=one)) for one in entries)
        if programs := [one for one in found if one]:
            yield programs
    if isinstance(media, Iso):
        yield from _in_boot_images(media)


def _in_boot_images(iso: Iso) -> Iterator[list[Program]]:
    for fat in eltorito.efi_images(iso):
        folders: dict[str, list[Program]] = {}
        try:
            for path, size in sorted(fat.files()):
                folder, _, name = path.lower().rpartition("/")
                if not name.endswith(".efi") or size > Limit.LOADER_SIZE.most:
                    continue
                if one := program(name, fat.read(path) or b"", FatFile(fat=fat, path=path, size=size)):
                    folders.setdefault(folder, []).append(one)
        except FatError:
            continue
        yield from folders.values()


def grub_in(layout: Path) -> GrubImage | None:
    """The GRUB in a layout; None if it has none. Raises OSError."""
    names = (layout / f"grub{suffix}.efi" for suffix in SUFFIXES.values())
    return next((found for path in names if path.is_file() and (found := read_grub(path.read_bytes()))), None)


def in_folder(folder: Path, *, machine: str, origin: str) -> BootLoaders | None:
    """The boot loaders in a local folder, regardless of their names; None if it has none. Raises OSError."""
    files = [
        path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size <= Limit.LOADER_SIZE.most
    ]
    programs = [one for path in files if (one := program(path.name, path.read_bytes()))]
    return paired(programs, machine=machine, origin=origin)
