"""What a LiveOS image is: its root filesystem, kernels, initrds, boot loaders and GRUB configuration, by content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import Span
from pxe_pack.image import grub, iso, rootfs, squashfs
from pxe_pack.image.grub import NetworkConfig, UnsuitableGrubConfigError
from pxe_pack.image.grubscript import GrubSyntaxError
from pxe_pack.image.initrd import InitrdFacts, read_initrd
from pxe_pack.image.iso import Iso, IsoEntry
from pxe_pack.image.rootfs import RootFacts
from pxe_pack.image.squashfs import Superblock, Tree
from pxe_pack.tools import InputError

GRUB_DIR = "boot/grub2"
GRUB_CFG = f"{GRUB_DIR}/grub.cfg"
GRUB_PXE_CFG = f"{GRUB_DIR}/grub-pxe.cfg"
# dracut's dmsquash-live-root: defaults of rd.live.dir and rd.live.squashimg, and what else it looks for there
LIVE_DIR, SQUASHFS_IMAGE, ROOTFS_IMAGE = "LiveOS", "squashfs.img", "rootfs.img"
CONFIG_LIMIT = 1 << 20  # bytes
UPDATES = "updates"  # at the medium's root: what dracut's apply-live-updates copies onto the new root

_LOADERS = (("bootx64.efi", "grubx64.efi"), ("bootaa64.efi", "grubaa64.efi"))
_MACHINES = {"bootx64.efi": "x86_64", "bootaa64.efi": "aarch64"}
_EFI_DIR = "efi/boot"
_EXT_MAGIC_AT, _EXT_MAGIC = 1024 + 56, b"\x53\xef"


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveImage:
    """A LiveOS ISO, looked at. Valid while it is open."""

    iso: Iso
    root: IsoEntry  # the file with the root filesystem
    span: Span  # where that stands in the ISO
    superblock: Superblock | None  # None: no squashfs but a bare ext file system
    facts: RootFacts
    initrds: dict[str, InitrdFacts]  # path in the ISO -> facts
    network: NetworkConfig
    grub_source: str  # which of the ISO's configurations `network` was made from
    selinux_enforcing: bool

    @property
    def tree(self) -> Tree:
        return Tree(file=self.iso.path, offset=self.span.offset)

    @property
    def machine(self) -> str:
        """The processor it is for, as `uname -m` says it: its C library's, else its boot loader's."""
        return self.facts.machine or next((_MACHINES[name] for name in boot_loaders(self.iso) if name in _MACHINES), "")

    def document(self) -> dict[str, object]:
        """What is known of the image, for a manifest."""
        facts, superblock = self.facts, self.superblock
        return {
            "name": self.iso.path.name,
            "volume_id": self.iso.volume_id,
            "system": facts.name,
            "machine": self.machine,
            "systemd": self.systemd,
            "glibc": str(facts.glibc) if facts.glibc else None,
            "selinux_enforcing": self.selinux_enforcing,
            "root": {
                "path": self.root.path,
                "format": self.root_format,
                "compressor": superblock.compressor if superblock else None,
                "block_size": superblock.block_size if superblock else None,
                "size": self.span.size,
            },
            "kernels": list(self.network.kernels),
            "initrds": [
                {
                    "path": name,
                    "compression": initrd.compression,
                    "livenet": initrd.livenet,
                    "dmsquash_live": initrd.dmsquash_live,
                    "applies_updates": initrd.applies_updates,
                    "modules": sorted(initrd.modules),
                }
                for name, initrd in self.initrds.items()
            ],
        }

    @property
    def mtime(self) -> int:
        """When the root filesystem was made, seconds since the epoch: the time of what is added to it."""
        return self.superblock.mkfs_time if self.superblock else 0

    @property
    def root_format(self) -> str:
        """squashfs, ext4-in-squashfs or ext4."""
        if self.superblock is None:
            return "ext4"
        return "ext4-in-squashfs" if self.facts.nested else "squashfs"

    @property
    def systemd(self) -> int | None:
        """Systemd's version in the root filesystem; where that cannot be seen, in the initrd made from it."""
        return self.facts.systemd or next((facts.systemd for facts in self.initrds.values() if facts.systemd), None)


@contextmanager
def opened(path: Path, *, boot_url: str) -> Iterator[LiveImage]:
    """The image at `path`. Raises InputError with all that keeps it from being a LiveOS to boot by PXE."""
    with iso.opened(path) as image:
        yield _look(image, boot_url=boot_url)


def _look(image: Iso, *, boot_url: str) -> LiveImage:
    source, text = _grub_config(image)
    files = grub.Files(
        exists=lambda name: image.find(name) is not None,
        read=lambda name: _text(image, entry) if (entry := image.find(name)) and entry.is_file else "",
    )
    try:
        arguments = grub.live_arguments(text, files=files)
        network = grub.for_network(text, boot_url=boot_url, files=files)
    except (GrubSyntaxError, UnsuitableGrubConfigError, RecursionError) as error:
        line = f":{error.line}" if isinstance(error, GrubSyntaxError) else ""
        raise InputError(
            Problem(
                reference="grub-unsuitable",
                message=f"{source}{line} in {image.path} cannot be used for PXE: {error}",
                hint="the image's GRUB entry has to boot the LiveOS: `linux /boot/vmlinuz root=live:… rd.live.image …`",
            )
        ) from error
    root = _root_image(image, arguments)
    span = iso.contiguous(root)
    if span is None:
        raise InputError(
            Problem(
                reference="image-scattered",
                message=f"{root.path} does not lie in one piece in {image.path}",
                hint="write the ISO anew with xorriso, which keeps files together",
            )
        )
    superblock = squashfs.superblock(image.file, offset=span.offset)
    facts = rootfs.read_root(Tree(file=image.path, offset=span.offset)) if superblock else RootFacts()
    return LiveImage(
        iso=image,
        root=root,
        span=span,
        superblock=superblock,
        facts=facts,
        initrds={name: _initrd(image, name) for name in network.initrds},
        network=network,
        grub_source=source,
        selinux_enforcing=_enforces(facts, arguments),
    )


def _grub_config(image: Iso) -> tuple[str, str]:
    for name in (GRUB_PXE_CFG, GRUB_CFG):
        if (entry := image.find(name)) and entry.is_file:
            return name, _text(image, entry)
    raise InputError(
        Problem(
            reference="image-no-grub",
            message=f"{image.path} has no {GRUB_CFG}: it is not a LiveOS that pxe-pack knows",
            hint="give an ISO in the layout of Azure Linux Image Customizer",
        )
    )


def _root_image(image: Iso, arguments: list[tuple[str, ...]]) -> IsoEntry:
    """The file with the root filesystem: where the kernel arguments say, else where dracut looks; by content."""
    for entry in arguments:
        given = dict(argument.split("=", 1) for argument in entry if "=" in argument)
        folder = given.get("rd.live.dir", LIVE_DIR)
        for name in (given.get("rd.live.squashimg", SQUASHFS_IMAGE), SQUASHFS_IMAGE, ROOTFS_IMAGE, "ext3fs.img"):
            found = image.find(f"{folder}/{name}")
            if found and found.is_file and _is_filesystem(image, found):
                return found
    raise InputError(
        Problem(
            reference="image-no-liveos",
            message=f"{image.path} has no LiveOS: no root filesystem where its kernel arguments or dracut look for one",
            hint=f"dracut looks for <rd.live.dir>/<rd.live.squashimg>, by default {LIVE_DIR}/{SQUASHFS_IMAGE}",
        )
    )


def _is_filesystem(image: Iso, entry: IsoEntry) -> bool:
    if squashfs.superblock(image.file, offset=entry.spans[0].offset if entry.spans else image.size):
        return True
    return image.read(entry, offset=_EXT_MAGIC_AT, size=2) == _EXT_MAGIC


def _initrd(image: Iso, name: str) -> InitrdFacts:
    entry = image.find(name)
    if entry is None:  # the GRUB configuration was checked against the image
        raise FileNotFoundError(name)
    return read_initrd(lambda offset, size: image.read(entry, offset=offset, size=size), name=name)


def _enforces(facts: RootFacts, arguments: list[tuple[str, ...]]) -> bool:
    """Whether SELinux will enforce: the kernel's arguments win over the configuration (selinux(8))."""
    for entry in arguments:
        given = dict(argument.split("=", 1) for argument in entry if "=" in argument)
        if given.get("selinux") == "0" or given.get("enforcing") == "0":
            continue
        if facts.selinux == "enforcing" or given.get("enforcing") == "1":
            return True
    return False


def _text(image: Iso, entry: IsoEntry) -> str:
    if entry.size > CONFIG_LIMIT:
        message = f"{entry.path} in {image.path} has {entry.size:,} bytes, which no configuration of GRUB has"
        raise InputError(Problem(reference="grub-unsuitable", message=message))
    return image.read(entry).decode(errors="surrogateescape")


def boot_loaders(image: Iso) -> dict[str, IsoEntry]:
    """The EFI programs by their names in the layout; empty when the ISO has no pair of them."""
    for names in _LOADERS:
        found = {name: image.find(f"{_EFI_DIR}/{name}") for name in names}
        if all(entry and entry.is_file for entry in found.values()):
            return {name: entry for name, entry in found.items() if entry}
    return {}


def grub_files(image: Iso) -> dict[str, IsoEntry]:
    """What else GRUB may load from its folder, by paths in the layout: fonts, themes, modules, its environment."""
    left_out = {"efiboot.img", "grub.cfg", "grub-pxe.cfg"}
    return {
        f"{GRUB_DIR}/{os.path.relpath(entry.path, GRUB_DIR)}": entry
        for entry in image.below(GRUB_DIR)
        if entry.is_file and entry.name not in left_out
    }
