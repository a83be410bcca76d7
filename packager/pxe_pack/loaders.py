"""Chooses the boot loaders for a layout: the image's own if they can boot over the network, else others.

Signed programs are used unchanged, a shim with the GRUB of the same distribution. Where distributions install them:
Debian's and Ubuntu's packages shim-signed and grub-efi-amd64-signed; Fedora's and Azure Linux's shim and grub2-efi, in
the EFI system partition; openSUSE's, in /usr/share/efi.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.bootloader import SUFFIXES, BootLoaders, in_folder, paired, program
from pxe_pack.image.tree import RootTree
from pxe_pack.packages import install_command
from pxe_pack.tools import InputError

ROOT = Path("/")  # searched for this machine's boot loaders

# (shim, GRUB), below ROOT; {s}: x64 or aa64; {g}: GRUB's platform name; {m}: uname -m
_PLACES = (
    ("usr/lib/shim/shim{s}.efi.signed", "usr/lib/grub/{g}-efi-signed/grubnet{s}.efi.signed"),
    ("usr/lib/shim/shim{s}.efi.signed.latest", "usr/lib/grub/{g}-efi-signed/grubnet{s}.efi.signed"),
    ("boot/efi/EFI/*/shim{s}.efi", "boot/efi/EFI/*/grub{s}.efi"),
    ("boot/efi/EFI/BOOT/[Bb][Oo][Oo][Tt]*.[Ee][Ff][Ii]", "boot/efi/EFI/BOOT/grub{s}.efi"),
    ("usr/share/efi/{m}/shim.efi", "usr/share/efi/{m}/grub.efi"),
)
_PLATFORMS = {"x86_64": "x86_64", "aarch64": "arm64"}
_PACKAGES = {  # as Debian calls them
    "x86_64": ("shim-signed", "grub-efi-amd64-signed"),
    "aarch64": ("shim-signed:arm64", "grub-efi-arm64-signed:arm64"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderChoice:
    """The chosen boot loaders, and the reason."""

    loaders: BootLoaders
    why: str


def choose_loaders(own: BootLoaders | None, *, machine: str, given: Path | None) -> LoaderChoice:
    """Choose from the folder `given`, the image's `own`, and this machine's boot loaders, in this order.

    `machine` is the nodes' `uname -m`; empty if unknown. Raises InputError if none can boot over the network.
    """
    machine = machine or (own.machine if own else "x86_64")
    if given:
        return LoaderChoice(loaders=_from_folder(given, machine=machine), why="chosen with --boot-loader")
    fits = own is not None and own.machine == machine
    if own and fits and not own.netboot.obstacle:
        return LoaderChoice(loaders=own, why=f"its GRUB reads {own.netboot.config} over TFTP")
    if own is None:
        why = "the image has no GRUB for UEFI"
    elif not fits:
        why = f"the image's boot loaders are for {own.machine}, but its root filesystem is for {machine}"
    else:
        why = f"the image's boot loaders cannot boot over the network: {own.netboot.obstacle}"
    for loaders in _of_this_machine(machine):
        if not loaders.netboot.obstacle:
            return LoaderChoice(loaders=loaders, why=why)
    packages = _PACKAGES.get(machine)
    raise InputError(
        Problem(
            reference="boot-loader-unfit" if own else "image-no-boot-loader",
            message=f"{why}; this machine has no shim and network GRUB for {machine} either",
            hint="pass a folder with both to --boot-loader"
            + (f", or install them: {install_command(*packages)}" if packages else ""),
        )
    )


def _from_folder(folder: Path, *, machine: str) -> BootLoaders:
    try:
        found = in_folder(folder, machine=machine, origin=str(folder))
    except OSError as error:
        message = f"cannot read the boot loaders in {folder}: {error.strerror}"
        hint = "pass the folder with shim and GRUB to --boot-loader"
        raise InputError(Problem(reference="boot-loader-unreadable", message=message, hint=hint)) from error
    if found and not found.netboot.obstacle:
        return found
    why = found.netboot.obstacle if found else f"it has no GRUB for UEFI on {machine}"
    raise InputError(
        Problem(
            reference="boot-loader-unfit",
            message=f"the boot loaders in {folder} cannot boot {machine} machines over the network: {why}",
            hint="use shim and a GRUB built for network boot, such as Debian's grubnetx64.efi.signed",
        )
    )


def _of_this_machine(machine: str) -> Iterator[BootLoaders]:
    """The boot loaders installed on this machine for nodes of `machine`. Unreadable ones are skipped."""
    if machine not in SUFFIXES:
        return
    words = {"s": SUFFIXES[machine], "g": _PLATFORMS[machine], "m": machine}
    for shims, grubs in _PLACES:
        for grub in sorted(ROOT.glob(grubs.format(**words))):
            matching = [shim for shim in sorted(ROOT.glob(shims.format(**words))) if _belong(shim, grub, shims)]
            for shim in matching:
                try:
                    found = [program(f"shim-{shim.name}", shim.read_bytes()), program(grub.name, grub.read_bytes())]
                except OSError:
                    continue
                programs = [one for one in found if one]
                pair = paired(programs, machine=machine, origin=f"this machine's {shim} and {grub}")
                if pair and len(programs) == len(found):
                    yield pair


def in_tree(tree: RootTree, *, machine: str) -> BootLoaders | None:
    """The shim and GRUB installed in a root filesystem; None if it has no pair.

    Prefers a pair that can boot over the network. Raises the errors of `tree`.
    """
    if machine not in SUFFIXES:
        return None
    words = {"s": SUFFIXES[machine], "g": _PLATFORMS[machine], "m": machine}
    found: BootLoaders | None = None
    for shims, grubs in _PLACES:
        names = [
            (shim, grub)
            for grub in _matching(tree, grubs.format(**words))
            for shim in _matching(tree, shims.format(**words))
            if _belong(Path(shim), Path(grub), shims)
        ]
        for shim, grub in names:
            both = [program(f"shim-{Path(shim).name}", tree.cat(shim)), program(Path(grub).name, tree.cat(grub))]
            programs = [one for one in both if one]
            pair = paired(programs, machine=machine, origin="the root filesystem's own")
            if pair and not pair.netboot.obstacle:
                return pair
            found = found or pair
    return found


def _matching(tree: RootTree, pattern: str) -> list[str]:
    """The files in `tree` that match a glob pattern."""
    found = [""]
    for part in pattern.split("/"):
        found = [
            inode.path
            for folder in found
            for inode in tree.inside(folder)
            if fnmatchcase(inode.path.rpartition("/")[2], part)
        ]
    return [path for path in found if stat.S_ISREG(tree.stat([path])[path].mode)]


def _belong(shim: Path, grub: Path, pattern: str) -> bool:
    """True if both files belong to one distribution: where several may be installed, if they share a folder."""
    return "*" not in pattern or shim.parent == grub.parent
