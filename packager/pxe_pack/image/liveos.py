"""Examine an image: its kind, root filesystem, kernels, initrds, boot loaders and GRUB configuration.

Two kinds boot over PXE. *bootstrap*: a small initrd downloads an ISO and mounts the root filesystem in it (dracut's
livenet and dmsquash-live). *full-os*: the initrd is the root filesystem, and nothing else is downloaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pxe_pack.image import rootfs
from pxe_pack.image.bootloader import BootFile, BootLoaders, MediaFile, boot_loaders
from pxe_pack.image.grub.config import find_network_config, grub_files, unsuitable
from pxe_pack.image.grub.efi_image import GrubImage
from pxe_pack.image.grub.network import NetworkConfig, with_commands
from pxe_pack.image.initrd.appended import appended
from pxe_pack.image.initrd.cpio import Archives
from pxe_pack.image.initrd.reader import InitrdFacts, read_initrd
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.limits import Limit
from pxe_pack.image.liveroot import LiveOS, find_live
from pxe_pack.image.media import Media, clipped
from pxe_pack.image.open_media import StagingFolder, below_tmpdir, live_iso, open_media
from pxe_pack.image.rootfs import RootFacts
from pxe_pack.image.rootfs_source import RootfsSource
from pxe_pack.image.tree import RootTree

UPDATES = "updates"  # folder at the medium's root that dracut's apply-live-updates copies onto the new root

Kind = Literal["bootstrap", "full-os"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveImage:
    """An examined image. Valid while it is open; it is never written to."""

    path: Path  # as given by the user
    kind: Kind
    media: Media  # source of kernels, initrds, boot loaders and GRUB's files; for an ISO, the ISO itself
    live: LiveOS | None  # what a bootstrap initrd downloads; None for full-os
    facts: RootFacts
    initrds: Mapping[str, InitrdFacts]  # path on the medium -> facts
    network: NetworkConfig
    grub_source: str  # path on the medium of the configuration that `network` was made from
    loaders: BootLoaders | None  # its own, whether or not they can boot over the network
    selinux_enforcing: bool
    rootfs_source: RootfsSource | None = None  # the root filesystem that the ISO was built from, if it was

    @property
    def iso(self) -> Iso | None:
        """The LiveOS ISO: the image itself, or one in its folder; None for full-os."""
        return self.live.iso if self.live else None

    @property
    def iso_path(self) -> str:
        """The ISO's path inside the image; empty if the image is the ISO itself, or has none."""
        if self.iso is None or isinstance(self.media, Iso):
            return ""
        return self.iso.input_path.relative_to(self.media.path).as_posix()

    @property
    def liveos(self) -> LiveOS:
        """The LiveOS of a bootstrap image. Raises ValueError for a full-os image."""
        if self.live is None:
            raise ValueError(f"{self.path} is {self.kind}")
        return self.live

    @property
    def tree(self) -> RootTree | None:
        """The root filesystem's tree; None if it cannot be read because it is an ext4."""
        if self.live is None:
            return next(facts.tree for facts in self.initrds.values() if facts.full_os)
        return self.live.tree if self.root_format == "squashfs" else None

    @property
    def root_format(self) -> str:
        """squashfs, ext4-in-squashfs or ext4; for full-os, cpio."""
        return self.live.root_format if self.live else "cpio"

    @property
    def mtime(self) -> int:
        """When the root filesystem was built, in seconds since the epoch; files added to it get this time."""
        if self.live is None:
            return max(facts.mtime for facts in self.initrds.values())
        return self.live.superblock.mkfs_time if self.live.superblock else 0

    @property
    def machine(self) -> str:
        """Its architecture, as in `uname -m`: that of its C library, else of its boot loader."""
        return self.facts.machine or (self.loaders.machine if self.loaders else "")

    @property
    def systemd(self) -> int | None:
        """The version of systemd in the root filesystem or, if that cannot be read, in the initrd built from it."""
        return self.facts.systemd or next((facts.systemd for facts in self.initrds.values() if facts.systemd), None)

    def boot_files(self) -> dict[str, BootFile]:
        """The files that TFTP serves, by path in the layout, except grub.cfg and the boot loaders.

        Initrds do not include what a previous pack appended.
        """
        entries = {**grub_files(self.media)}
        for target, source in self.network.files.items():
            if entry := self.media.find(source):
                facts = self.initrds.get(source)
                previous = facts.appended if facts else None
                entries.setdefault(target, clipped(entry, previous.before.size) if previous else entry)
        return {path: MediaFile(media=self.media, entry=entry) for path, entry in entries.items()}

    def grub_cfg(self, grub: GrubImage | None) -> str:
        """grub.cfg for a layout with this GRUB; None if it is not known."""
        return with_commands(self.network.text, grub.commands) if grub else self.network.text

    def document(self) -> dict[str, object]:
        """The image's properties, for the manifest."""
        facts = self.facts
        return {
            "name": self.path.name,
            "kind": self.kind,
            "volume_id": self.iso.volume_id if self.iso else None,
            "system": facts.name,
            "machine": self.machine,
            "systemd": self.systemd,
            "glibc": str(facts.glibc) if facts.glibc else None,
            "selinux_enforcing": self.selinux_enforcing,
            "root": self._root_document(),
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

    def _root_document(self) -> dict[str, object]:
        if self.live is None:
            path = next(name for name, facts in self.initrds.items() if facts.full_os)
            entry = self.media.find(path)
            return {"path": path, "format": self.root_format, "size": entry.size if entry else 0}
        superblock = self.live.superblock
        return {
            "path": self.live.root.path,
            "format": self.root_format,
            "compressor": superblock.compressor if superblock else None,
            "block_size": superblock.block_size if superblock else None,
            "size": self.live.span.size,
        }


@contextmanager
def opened(path: Path, *, boot_url: str, staging: StagingFolder = below_tmpdir) -> Iterator[LiveImage]:
    """Open and examine the image at `path`: an ISO, a pxe-dir, or a pxe-tar.

    An archive is unpacked in a folder provided by `staging`. An empty `boot_url` leaves `root=live:` unchanged. Raises
    InputError if the image cannot boot over PXE.
    """
    with open_media(path, staging=staging) as media, examined(media, path=path, boot_url=boot_url) as image:
        yield image


@contextmanager
def examined(
    media: Media,
    *,
    path: Path,
    boot_url: str,
    loaders: BootLoaders | None = None,
    rootfs_source: RootfsSource | None = None,
) -> Iterator[LiveImage]:
    """Examine the open medium of the image that was given as `path`.

    `loaders` are its boot loaders if they are known, and `rootfs_source` what it was built from. Raises InputError if
    it cannot boot over PXE.
    """
    with contextlib.ExitStack() as stack:
        config = find_network_config(media, boot_url=boot_url)
        network = config.network
        initrds = {name: _initrd(media, name) for name in network.initrds}
        if network.live:
            live = find_live(stack.enter_context(live_iso(media)), network.arguments)
            facts = live.facts
        else:
            live = None
            whole = next((initrd for initrd in initrds.values() if initrd.full_os), None)
            if whole is None:
                raise unsuitable(media, config.source, "no entry boots a LiveOS (`linux … root=live:…`)")
            facts = rootfs.read_root(whole.tree)
        yield LiveImage(
            path=path,
            kind="bootstrap" if live else "full-os",
            media=media,
            live=live,
            facts=facts,
            initrds=initrds,
            network=network,
            grub_source=config.source,
            loaders=loaders or boot_loaders(media),
            rootfs_source=rootfs_source,
            selinux_enforcing=_enforces(facts, network.arguments),
        )


def _initrd(media: Media, name: str) -> InitrdFacts:
    entry = media.find(name)
    if entry is None:  # cannot happen: the GRUB configuration was checked against the image
        raise FileNotFoundError(name)
    Limit.INITRD_SIZE.check(entry.size)
    added = appended(lambda offset, size: media.read(entry, offset=offset, size=size), size=entry.size)
    whole = clipped(entry, added.before.size) if added else entry

    def source(offset: int, size: int) -> bytes:
        return media.read(whole, offset=offset, size=max(min(size, whole.size - offset), 0))

    facts = read_initrd(source, name=name, keep=rootfs.is_system_file)
    if added is None:
        return facts
    start = added.before.size
    behind = Archives(lambda offset, size: media.read(entry, offset=start + offset, size=size))
    more = sum(member.size for member in behind.members(lambda _: False))
    return replace(facts, appended=added, unpacked=facts.unpacked + more)


def _enforces(facts: RootFacts, arguments: tuple[tuple[str, ...], ...]) -> bool:
    """Whether SELinux will be enforcing: kernel arguments override the configuration (selinux(8))."""
    for entry in arguments:
        given = dict(argument.split("=", 1) for argument in entry if "=" in argument)
        if given.get("selinux") == "0" or given.get("enforcing") == "0":
            continue
        if facts.selinux == "enforcing" or given.get("enforcing") == "1":
            return True
    return False
