"""Where a live system keeps what is written to its root filesystem, and what dracut copies into memory.

Sources: dracut 059 and dracut-ng 108, modules.d/*dmsquash-live/dmsquash-live-root.sh and *overlayfs/;
dracut.cmdline(7), "Booting live images":

- a squashfs that is the root filesystem gets an overlayfs, so does any with `rd.live.overlay.overlayfs`: its upper
  directory is /run/overlayfs;
- an ext4 gets a device-mapper snapshot, in the file /overlay of the initrd: `rd.live.overlay.size` MiB at most;
- `rd.live.overlay.thin` has that file in /run/initramfs;
- `rd.live.overlay=DEVICE:PATH` names a file or directory on a disk, which is taken if it is there;
- `rd.live.ram` copies the root filesystem to /run/initramfs, `rd.writable.fsimg` copies its ext4 there. Before that,
  dracut-ng (img-lib.sh, check_live_ram) opens an emergency shell unless `rd.minmem` MiB of the memory are left, and
  enlarges /run so that as much is left there.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from pxe_pack.image import dracut
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.rootfs import NESTED
from pxe_pack.image.tree import text_file
from pxe_pack.layout.entries import BootEntry

RUN, ROOT = "/run", "/"
SNAPSHOT = "the snapshot"  # in the initrd's ramfs, where nothing is mounted
_LIVE_ROOT = ("usr/sbin/dmsquash-live-root", "sbin/dmsquash-live-root")
_DEFAULT_SIZE = re.compile(r"\boverlay_size=(\d{1,9})\b")
_SNAPSHOT_SIZE = 32768  # MiB, the default of dracut 059; old releases have 512
_IMG_LIB, _CHECK = "usr/lib/img-lib.sh", "check_live_ram"
_MIN_MEMORY = 1024  # MiB, dracut's default of rd.minmem
_DEVICE = ("/dev/", "LABEL=", "UUID=", "PARTLABEL=", "PARTUUID=", "live:")


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRamCheck:
    """dracut's check of the memory before it copies an image of `image` bytes: `left` bytes have to be left."""

    image: int
    left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WritableLayer:
    """Where files written to the root filesystem go."""

    space: str  # RUN, ROOT or SNAPSHOT
    most: int | None = None  # bytes that the layer itself is limited to
    persistent: str = ""  # the device that may hold it instead
    copies: tuple[tuple[str, int], ...] = ()  # what dracut copies to /run, and bytes
    check: LiveRamCheck | None = None  # what dracut does before it copies


def writable_layer(image: LiveImage, entry: BootEntry | None) -> WritableLayer:
    """The writable layer of a node that boots `entry` of `image`."""
    if image.live is None:
        return WritableLayer(space=ROOT)
    arguments = entry.arguments if entry else ()
    overlayfs = dracut.getargbool(arguments, dracut.OVERLAYFS)
    copies = tuple(_copies(image, arguments))
    persistent, check = _persistent(entry), _live_ram_check(image, entry)
    if image.root_format == "squashfs" or overlayfs:
        return WritableLayer(space=RUN, persistent=persistent, copies=copies, check=check)
    if dracut.getargbool(arguments, dracut.WRITABLE_IMAGE):  # written to the copy, which has its full size
        return WritableLayer(space=SNAPSHOT, persistent=persistent, copies=copies, check=check)
    given = _number(arguments, dracut.OVERLAY_SIZE)
    size = (_snapshot_size(image) if given is None else given) << 20
    thin = dracut.getargbool(arguments, dracut.OVERLAY_THIN)
    space = RUN if thin else SNAPSHOT
    return WritableLayer(space=space, most=size, persistent=persistent, copies=copies, check=check)


def _copies(image: LiveImage, arguments: tuple[str, ...]) -> list[tuple[str, int]]:
    copies = []
    if dracut.getargbool(arguments, dracut.LIVE_RAM):
        copies.append(("copy for rd.live.ram", image.liveos.span.size))
    if dracut.getargbool(arguments, dracut.WRITABLE_IMAGE) and image.root_format != "squashfs":
        copies.append(("copy for rd.writable.fsimg", _ext4_size(image)))
    return copies


def _live_ram_check(image: LiveImage, entry: BootEntry | None) -> LiveRamCheck | None:
    """The check that the initrd makes; None if it makes none."""
    arguments = entry.arguments if entry else ()
    if dracut.getargbool(arguments, dracut.WRITABLE_IMAGE):
        size = image.liveos.iso.size
    elif dracut.getargbool(arguments, dracut.LIVE_RAM) and image.liveos.superblock:
        size = image.liveos.span.size
    else:
        return None
    if not any(_CHECK in text_file(facts.tree, _IMG_LIB) for facts in image.initrds.values()):
        return None
    least = _number(arguments, dracut.MIN_MEMORY)
    return LiveRamCheck(image=size, left=(_MIN_MEMORY if least is None else least) << 20)


def _snapshot_size(image: LiveImage) -> int:
    """The size of a snapshot in MiB without `rd.live.overlay.size`, as the initrd's own script has it."""
    scripts = [text_file(facts.tree, path) for facts in image.initrds.values() for path in _LIVE_ROOT]
    found = [_DEFAULT_SIZE.search(script) for script in scripts]
    return min((int(one[1]) for one in found if one), default=_SNAPSHOT_SIZE)


def _ext4_size(image: LiveImage) -> int:
    """The size of the image's ext4 in bytes."""
    live = image.liveos
    if live.superblock is None:
        return live.span.size
    found = live.tree.stat(NESTED)
    return next((int(found[path].size) for path in NESTED if path in found and stat.S_ISREG(found[path].mode)), 0)


def _persistent(entry: BootEntry | None) -> str:
    """The device in `rd.live.overlay=`; empty if that names none (Image Customizer writes `1`)."""
    given = (dracut.getarg(entry.arguments, dracut.OVERLAY) if entry else None) or ""
    return given if given.startswith(_DEVICE) else ""


def _number(arguments: Sequence[str], names: Sequence[str]) -> int | None:
    value = dracut.getarg(arguments, names) or ""
    return int(value) if value.isascii() and value.isdigit() else None
