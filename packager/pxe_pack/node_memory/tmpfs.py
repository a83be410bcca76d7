"""The sizes of the file systems in memory on a node.

Sources:

- systemd, src/shared/mount-setup.c: /run is a tmpfs of a fifth of the memory since release 247, before it had the
  kernel's default. It is mounted by the systemd of the initrd, and moved onto the new root; Ubuntu patches it to 10 %.
- dracut, modules.d/base/init.sh: without systemd the initrd mounts /run with the kernel's default.
- Linux, Documentation/filesystems/tmpfs.rst: the default is half of the memory.
- Linux, init/do_mounts.c, init_rootfs(): the initrd is unpacked into a tmpfs if there is no `root=`, else into a ramfs,
  which has no limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from pxe_fetch.contract.quantity import show_share
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.mounts import Mount, size_in_bytes
from pxe_pack.layout.entries import BootEntry

_HALF, _FIFTH, _TENTH = "50%", "20%", "10%"
_FIFTH_SINCE = 247  # systemd's release
_PAGE_STRUCTS = 64  # the kernel keeps 64 bytes about each page of 4 KiB: 1/64 of the memory (mm_types.h, struct page)
_RESERVED = 96 << 20  # bytes that firmware and kernel keep, about: measured when the initrd mounts /run


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """How much a file system in memory holds."""

    size: str  # as tmpfs's option: "20%" or bytes
    why: str

    def __str__(self) -> str:
        of = " of the memory" if self.size.endswith("%") else ""
        return f"{show_share(self.size)}{of}, {self.why}"

    def on(self, memory: int) -> int:
        """Bytes, on a node with so many bytes of memory."""
        size = size_in_bytes(self.size, memory=total(memory))
        return total(memory) // 2 if size is None else size


def total(memory: int) -> int:
    """MemTotal (proc_meminfo(5)) on a node with `memory` bytes: what the shares of tmpfs are taken of."""
    return max(memory - memory // _PAGE_STRUCTS - _RESERVED, memory // 2, 1)


def of_run(image: LiveImage, entry: BootEntry | None, configured: Mount | None) -> Limit:
    """The limit of /run. An entry in the image's fstab is applied by systemd-remount-fs.service(8)."""
    if configured and configured.size:
        return Limit(size=configured.size, why="the image's fstab")
    if image.facts.name.startswith("Ubuntu"):
        return Limit(size=_TENTH, why="Ubuntu's systemd")
    if image.live is None:
        return _by_systemd(image.systemd, where="")
    loaded = [image.initrds[name] for name in initrds_of(image, entry)]
    if loaded and not any(one.systemd or "systemd" in one.modules for one in loaded):
        return Limit(size=_HALF, why="an initrd without systemd")
    release = next((one.systemd for one in loaded if one.systemd), image.systemd)
    return _by_systemd(release, where=" in the initrd")


def _by_systemd(release: int | None, *, where: str) -> Limit:
    if release is not None and release < _FIFTH_SINCE:
        return Limit(size=_HALF, why=f"systemd {release}{where}")
    return Limit(size=_FIFTH, why=f"systemd {release}{where}" if release else "systemd's default")


def initrds_of(image: LiveImage, entry: BootEntry | None) -> list[str]:
    """The initrds of `entry`, as paths on the medium; all if there is no entry."""
    if entry is None:
        return list(image.initrds)
    paths = [image.network.files.get(path.lstrip("/"), path.lstrip("/")) for path in entry.initrds]
    return [path for path in paths if path in image.initrds]


def of_mount(mount: Mount) -> Limit | None:
    """The limit of a tmpfs that the image mounts; None for a ramfs."""
    if mount.fs_type != "tmpfs":
        return None
    return Limit(size=mount.size or _HALF, why=f"the image's mount of {mount.point}")


def of_shm() -> Limit:
    """The limit of /dev/shm."""
    return Limit(size=_HALF, why="the kernel's default")


def of_root(entry: BootEntry | None) -> Limit | None:
    """The limit of an initrd that is the root filesystem; None if it has none."""
    if entry and entry.values("root"):
        return None
    return Limit(size=_HALF, why="the kernel's default without root=")
