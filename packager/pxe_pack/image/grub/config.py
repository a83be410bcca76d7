"""Find the GRUB configuration of a medium and rewrite it for the network.

Image Customizer, KIWI and Fedora put it in boot/grub2, Debian in boot/grub. A signed GRUB with the prefix
/EFI/<distribution> has a short one there that sources it or, on some media, the only one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.grub.files import Files, UnsuitableGrubConfigError
from pxe_pack.image.grub.interpreter import run
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.grub.network import NetworkConfig, for_network
from pxe_pack.image.limits import Limit
from pxe_pack.image.media import Media, MediaEntry
from pxe_pack.tools import InputError

GRUB_DIR = "boot/grub2"
GRUB_CFG = f"{GRUB_DIR}/grub.cfg"
GRUB_PXE_CFG = f"{GRUB_DIR}/grub-pxe.cfg"

_FOLDERS = (GRUB_DIR, "boot/grub")
_LEFT_OUT = {"efiboot.img", "efi.img", "grub.cfg", "grub-pxe.cfg"}


@dataclass(frozen=True, kw_only=True, slots=True)
class MediumConfig:
    """The chosen configuration."""

    source: str  # its path on the medium
    network: NetworkConfig


def find_network_config(media: Media, *, boot_url: str) -> MediumConfig:
    """The first of the medium's configurations that boots Linux, rewritten by `for_network`.

    Raises InputError if there is none, or, with the error of the first, if none is usable for PXE.
    """
    refused: InputError | None = None
    for entry in _candidates(media):
        try:
            network = for_network(_text(media, entry), boot_url=boot_url, files=_files(media))
            run(network.text, read=_files(media).read)  # within the limits
            return MediumConfig(source=entry.path, network=network)
        except GrubSyntaxError as error:
            refused = refused or unsuitable(media, f"{entry.path}:{error.line}", str(error))
        except UnsuitableGrubConfigError as error:
            refused = refused or unsuitable(media, entry.path, str(error))
    raise refused or InputError(
        Problem(
            reference="image-no-grub",
            message=f"{media.input_path} has no {GRUB_CFG}: it is not a LiveOS that pxe-pack supports",
            hint="use an ISO or a pxe-dir in the layout of Azure Linux Image Customizer",
        )
    )


def unsuitable(media: Media, source: str, why: str) -> InputError:
    """The error for an unusable configuration."""
    return InputError(
        Problem(
            reference="grub-unsuitable",
            message=f"{source} in {media.input_path} cannot be used for PXE: {why}",
            hint="the image's GRUB entry must boot the LiveOS: `linux /boot/vmlinuz root=live:… rd.live.image …`",
        )
    )


def grub_files(media: Media) -> dict[str, MediaEntry]:
    """Other files GRUB may load from its folder, by path in the layout: fonts, themes, modules, grubenv."""
    found: dict[str, MediaEntry] = {}
    for folder in _FOLDERS:
        top = media.find(folder)
        for entry in media.below(top.path) if top else ():
            path = os.path.relpath(entry.path, top.path if top else folder)
            if entry.is_file and path not in _LEFT_OUT:
                found.setdefault(f"{GRUB_DIR}/{path}", entry)
    return found


def _candidates(media: Media) -> Iterator[MediaEntry]:
    named = [GRUB_PXE_CFG, *(f"{folder}/grub.cfg" for folder in _FOLDERS), "EFI/BOOT/grub.cfg"]
    found = [entry for name in named if (entry := media.find(name)) and entry.is_file]
    yield from found
    for path, entry in sorted(media.entries.items()):
        parts = path.lower().split("/")
        if len(parts) == 3 and (parts[0], parts[2]) == ("efi", "grub.cfg") and entry.is_file and entry not in found:  # noqa: PLR2004  EFI/<distribution>/grub.cfg
            yield entry


def _files(media: Media) -> Files:
    def find(path: str) -> MediaEntry | None:
        plain = path.lstrip("/")
        # for a GRUB whose folder is boot/grub, $prefix is that; in the layout it is boot/grub2
        if (found := media.find(plain)) or not plain.startswith(f"{GRUB_DIR}/"):
            return found
        return media.find(f"boot/grub{plain.removeprefix(GRUB_DIR)}")

    def read(path: str) -> str:
        entry = find(path)
        return _text(media, entry) if entry and entry.is_file else ""

    def names(path: str) -> list[str]:
        folder = media.find(path)
        if folder is None or not folder.is_directory:
            return []
        inner = media.below(folder.path)
        return [entry.name for entry in inner if entry.is_file and "/" not in entry.path[len(folder.path) + 1 :]]

    return Files(exists=lambda path: find(path) is not None, read=read, names=names)


def _text(media: Media, entry: MediaEntry) -> str:
    if entry.size > Limit.GRUB_BYTES.most:
        message = (
            f"{entry.path} in {media.input_path} has {entry.size:,} bytes, which is too large for a GRUB configuration"
        )
        raise InputError(Problem(reference="grub-unsuitable", message=message))
    return media.read(entry).decode(errors="surrogateescape")
