"""What an image is: its kind, root filesystem, kernels, initrds, boot loaders and GRUB configuration, by content.

Two kinds boot over PXE. *bootstrap*: a small initrd fetches an ISO and mounts the root filesystem in it (dracut's
livenet and dmsquash-live). *full-os*: the initrd is the root filesystem, and nothing else is fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pxe_pack import liveiso
from pxe_pack.image import rootfs
from pxe_pack.image.bootloader import BootFile, BootLoaders, MediaFile, boot_loaders
from pxe_pack.image.grub.config import find_network_config, grub_files, unsuitable
from pxe_pack.image.grub.network import NetworkConfig
from pxe_pack.image.initrd.appended import appended
from pxe_pack.image.initrd.cpio import Archives
from pxe_pack.image.initrd.reader import InitrdFacts, read_initrd
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.liveroot import LiveOS, find_live
from pxe_pack.image.media import Media, clipped
from pxe_pack.image.open_media import StagingFolder, below_tmpdir, live_iso, open_media
from pxe_pack.image.rootfs import RootFacts
from pxe_pack.image.tree import RootTree
from pxe_pack.liveiso import BuiltIso, RootfsSource, StepContext, detect_rootfs

UPDATES = "updates"  # at the medium's root: what dracut's apply-live-updates copies onto the new root

Kind = Literal["bootstrap", "full-os"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveImage:
    """An image, looked at. Valid while it is open; nothing of it is ever written to."""

    path: Path  # as it was given
    kind: Kind
    media: Media  # where kernels, initrds, boot loaders and GRUB's files come from; of an ISO, that
    live: LiveOS | None  # what a bootstrap initrd fetches; None for full-os
    facts: RootFacts
    initrds: Mapping[str, InitrdFacts]  # path on the medium -> facts
    network: NetworkConfig
    grub_source: str  # which of the medium's configurations `network` was made from
    loaders: BootLoaders | None  # its own, whether or not they can boot over the network
    selinux_enforcing: bool
    rootfs_source: RootfsSource | None = None  # the root filesystem that the ISO was made of

    @property
    def iso(self) -> Iso | None:
        """The LiveOS ISO: the image itself, or one in its folder; None for full-os."""
        return self.live.iso if self.live else None

    @property
    def iso_path(self) -> str:
        """Where the ISO lies in what was given; empty when it is that, or when there is none."""
        if self.iso is None or self.media is self.iso:
            return ""
        return self.iso.path.relative_to(self.media.path).as_posix()

    @property
    def liveos(self) -> LiveOS:
        """The LiveOS of a bootstrap image, for those who have seen that it is one. Raises ValueError."""
        if self.live is None:
            raise ValueError(f"{self.path} is {self.kind}")
        return self.live

    @property
    def tree(self) -> RootTree | None:
        """The root filesystem's tree; None where it cannot be seen, inside an ext4."""
        if self.live is None:
            return next(facts.tree for facts in self.initrds.values() if facts.full_os)
        return self.live.tree if self.root_format == "squashfs" else None

    @property
    def root_format(self) -> str:
        """squashfs, ext4-in-squashfs, ext4; of full-os, cpio."""
        return self.live.root_format if self.live else "cpio"

    @property
    def mtime(self) -> int:
        """When the root filesystem was made, seconds since the epoch: the time of what is added to it."""
        if self.live is None:
            return max(facts.mtime for facts in self.initrds.values())
        return self.live.superblock.mkfs_time if self.live.superblock else 0

    @property
    def machine(self) -> str:
        """The processor it is for, as `uname -m` says it: its C library's, else its boot loader's."""
        return self.facts.machine or (self.loaders.machine if self.loaders else "")

    @property
    def systemd(self) -> int | None:
        """Systemd's version in the root filesystem; where that cannot be seen, in the initrd made from it."""
        return self.facts.systemd or next((facts.systemd for facts in self.initrds.values() if facts.systemd), None)

    def boot_files(self) -> dict[str, BootFile]:
        """The files that TFTP serves, by paths in the layout, but for grub.cfg itself and the boot loaders.

        Initrds come without what a former pack appended.
        """
        entries = {**grub_files(self.media)}
        for target, source in self.network.files.items():
            if entry := self.media.find(source):
                facts = self.initrds.get(source)
                former = facts.appended if facts else None
                entries.setdefault(target, clipped(entry, former.before.size) if former else entry)
        return {path: MediaFile(media=self.media, entry=entry) for path, entry in entries.items()}

    def document(self) -> dict[str, object]:
        """What is known of the image, for a manifest."""
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


def _no_step(_: str) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


@contextmanager
def opened(
    path: Path,
    *,
    boot_url: str,
    staging: StagingFolder = below_tmpdir,
    boot_loader: Path | None = None,
    step: StepContext = _no_step,
) -> Iterator[LiveImage]:
    """The image at `path`: an ISO, a folder as Image Customizer writes it for PXE, an archive of one, a root tree.

    An archive is unpacked, and a root filesystem made into an ISO (with the boot loaders in the folder `boot_loader`,
    if given), in a folder that `staging` gives, for as long as the image is open; `step` is a context manager around
    each step of that. With an empty `boot_url`, `root=live:` stays as the image has it. Raises InputError with all that
    keeps the image from booting by PXE.
    """
    with contextlib.ExitStack() as stack:
        made: BuiltIso | None = None
        if source := detect_rootfs(path):
            place = stack.enter_context(staging())
            made = stack.enter_context(
                liveiso.build_iso(source, boot_url=boot_url, boot_loader=boot_loader, staging=place, step=step)
            )
        media: Media = made.iso if made else stack.enter_context(open_media(path, staging=staging))
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
                raise unsuitable(media, config.source, "none of its entries boots a LiveOS (`linux … root=live:…`)")
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
            loaders=made.loaders if made else boot_loaders(media),
            rootfs_source=source,
            selinux_enforcing=_enforces(facts, network.arguments),
        )


def _initrd(media: Media, name: str) -> InitrdFacts:
    entry = media.find(name)
    if entry is None:  # the GRUB configuration was checked against the image
        raise FileNotFoundError(name)
    added = appended(lambda offset, size: media.read(entry, offset=offset, size=size), size=entry.size)
    whole = clipped(entry, added.before.size) if added else entry

    def source(offset: int, size: int) -> bytes:
        return media.read(whole, offset=offset, size=max(min(size, whole.size - offset), 0))

    facts = read_initrd(source, name=name, keep=rootfs.tells_of_the_system)
    if added is None:
        return facts
    start = added.before.size
    behind = Archives(lambda offset, size: media.read(entry, offset=start + offset, size=size))
    more = sum(member.size for member in behind.members(lambda _: False))
    return replace(facts, appended=added, unpacked=facts.unpacked + more)


def _enforces(facts: RootFacts, arguments: tuple[tuple[str, ...], ...]) -> bool:
    """Whether SELinux will enforce: the kernel's arguments win over the configuration (selinux(8))."""
    for entry in arguments:
        given = dict(argument.split("=", 1) for argument in entry if "=" in argument)
        if given.get("selinux") == "0" or given.get("enforcing") == "0":
            continue
        if facts.selinux == "enforcing" or given.get("enforcing") == "1":
            return True
    return False
