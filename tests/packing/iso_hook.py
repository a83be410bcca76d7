"""The initrd of a packed layout, unpacked: the hook that verifies the ISO runs in it, as on a node.

The shells, dracut's functions, curl and sha256sum are those of the initrd. Only what needs a kernel of its own is
replaced: losetup, and what mounts the ISO, which notes what it is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liveos import shapes
from liveos.cache import Cache
from packing.site import Site, files_of, small_agent
from pxe_pack import cli

# busybox's shell prefers its own commands to those in PATH
BUSYBOX = 'losetup() { /sbin/losetup "$@"; }; reboot() { /sbin/reboot; }; . /sbin/livenetroot'
SHELLS = {
    "dash": ["/usr/bin/dash", "/sbin/livenetroot"],
    "bash": ["/usr/bin/bash", "/sbin/livenetroot"],
    "busybox": ["/busybox", "sh", "-c", BUSYBOX, "livenetroot"],
}
# in namespaces of its own, for what it does to the machine when it gives up
APART = ["unshare", "--map-root-user", "--pid", "--fork", "chroot"]
_DRACUT_PACKAGES = ("dracut-core", "dracut-network", "dracut-live")
REPLACED = {
    "usr/sbin/losetup": '[ "$1" = -f ] && echo /dev/loop7 || echo "$2" > /looped\n',
    "usr/sbin/dmsquash-live-root": 'echo "$1" > /mounted\n',
    "usr/sbin/reboot": "echo > /rebooted\n",
}


def unpacked_initrd(folder: Path) -> Path:
    """The folder in which the initrd of a packed layout is unpacked."""
    site = Site(folder=folder, image=shapes.cached(shapes.SHAPES["ic16"]), agent=small_agent(folder / "agent"))
    assert cli.main(site.command("--quiet")) == 0
    (packed,) = site.output.glob("boot/initramfs-*.img")
    whole, before = packed.read_bytes(), len(files_of(site.image)[f"boot/{packed.name}"])
    root = folder / "root"
    root.mkdir()
    for part in (whole[:before], whole[before:].lstrip(b"\0")):
        archive = subprocess.run(["zstd", "-dcq"], input=part, capture_output=True, check=False).stdout
        command = ["cpio", "-idu", "--quiet", "--no-preserve-owner", "-D", str(root)]
        subprocess.run(command, input=archive, capture_output=True, check=False)  # only root can make device nodes
    shutil.copyfile("/bin/busybox", root / "busybox")
    (root / "busybox").chmod(0o755)
    for name, text in REPLACED.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(f"#!/bin/sh\n{text}")
        (root / name).chmod(0o755)
    return root


def with_dracut_of(suite: str, initrd: Path, folder: Path) -> Path:
    """A copy of an unpacked initrd in `folder`, with the functions and the livenetroot of another Debian's dracut.

    The packages come from Debian's archive, and are kept in the cache of images.
    """
    download = f"apt-get -qq download {' '.join(_DRACUT_PACKAGES)}"
    unpack = 'for file in *.deb; do dpkg-deb -x "$file" .; done'
    hook = f'cd "$1" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG {download} && {unpack}'

    def make(modules: Path) -> None:
        command = ["mmdebstrap", "--quiet", "--variant=extract", f"--extract-hook={hook}", suite, "-"]
        tar = subprocess.run(command, env={**os.environ, "TMPDIR": "/var/tmp"}, stdout=subprocess.PIPE, check=True)
        modules.mkdir()
        below = "./usr/lib/dracut/modules.d"
        command = ["tar", "-x", "-C", str(modules), f"--strip-components={below.count('/') + 1}", below]
        subprocess.run(command, input=tar.stdout, check=True)

    modules = Cache().get(f"dracut-{suite}", make)
    copy = folder / suite
    shutil.copytree(initrd, copy, symlinks=True)
    for name in ("dracut-lib.sh", "dracut-dev-lib.sh", "url-lib.sh", "net-lib.sh", "fs-lib.sh", "img-lib.sh"):
        _replace(modules, name, copy / "usr/lib" / name)
    _replace(modules, "livenetroot.sh", copy / "usr/lib/pxe-fetch-iso/livenetroot")
    return copy


def _replace(modules: Path, name: str, place: Path) -> None:
    (script,) = modules.glob(f"*/{name}")
    place.unlink(missing_ok=True)
    shutil.copyfile(script, place)
    place.chmod(0o755)


@dataclass(frozen=True)
class Ran:
    """What came of the hook."""

    root: Path
    code: int
    said: str

    @property
    def mounted(self) -> bytes | None:
        """The bytes of the file that was mounted; None if it has not come to that."""
        if not (self.root / "mounted").exists():
            return None
        assert (self.root / "mounted").read_text() == "/dev/loop7\n"
        return (self.root / (self.root / "looped").read_text().strip().lstrip("/")).read_bytes()

    @property
    def console(self) -> str:
        """What the kernel's log, and so the console, was told."""
        return (self.root / "dev/kmsg").read_text()


@dataclass(frozen=True)
class Hook:
    """The hook in one shell."""

    root: Path
    shell: Sequence[str]

    def run(self, url: str, *, arguments: str) -> Ran:
        """Have it fetch `url`, as dracut's netroot.sh does."""
        for name in ("mounted", "looped", "rebooted", "run/initramfs", "tmp", "dev"):
            path = self.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in ("tmp", "dev", "proc"):
            (self.root / name).mkdir(exist_ok=True)
        for name in ("dev/null", "dev/kmsg"):  # files do, and are there without a device node
            (self.root / name).touch()
        (self.root / "proc/cmdline").write_text(f"root=live:{url} rd.shell=0 {arguments}\n")
        return self.again(url)

    def again(self, url: str) -> Ran:
        """Have it run once more on the same node, as for another interface."""
        ran = subprocess.run(
            [*APART, str(self.root), *self.shell, "eth0", f"livenet:{url}"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SLEEP": "0", "RETRIES": "4", "SILENCE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ran(root=self.root, code=ran.returncode, said=ran.stdout + ran.stderr)
