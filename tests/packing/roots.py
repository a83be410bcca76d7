"""Root filesystems to give: a folder, a tar and a squashfs of the tiny one, with a kernel and an initrd in /boot."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from liveos import tiny, tree
from liveos.cache import Cache
from liveos.specials import Inode

CMDLINE = "root=UUID=1234 ro quiet console=ttyS0 site=a;b\n"


def inodes(*, boot: bool = True) -> Iterator[Inode]:
    """The tree, with what boots it."""
    yield from tiny.tree()
    yield Inode("etc/kernel", tarfile.DIRTYPE, mode=0o755)
    yield Inode("etc/kernel/cmdline", data=CMDLINE.encode())
    if boot:
        files = tiny.boot_files(Cache())
        yield Inode(f"boot/vmlinuz-{tiny.RELEASE}", data=files.kernel.read_bytes())
        yield Inode(f"boot/initramfs-{tiny.RELEASE}.img", data=files.initrd.read_bytes())
        yield Inode("boot/vmlinuz", tarfile.SYMTYPE, mode=0o777, target=f"vmlinuz-{tiny.RELEASE}")


def stream(contents: Iterable[Inode]) -> bytes:
    """They as a tar."""
    out = io.BytesIO()
    tree.write(out, base=None, over=contents)
    return out.getvalue()


def tar(target: Path, contents: Iterable[Inode]) -> Path:
    target.write_bytes(stream(contents))
    return target


def squashfs(target: Path, contents: Iterable[Inode]) -> Path:
    subprocess.run(["tar2sqfs", "-q", "-c", "gzip", target], input=stream(contents), check=True)
    return target


def folder(target: Path, contents: Iterable[Inode]) -> Path:
    """They as files of ours: owners and devices are left out, as a user who unpacks has to."""
    target.mkdir()
    for inode in contents:
        path = target / inode.path
        if inode.kind == tarfile.DIRTYPE:
            path.mkdir(parents=True, exist_ok=True)
        elif inode.kind == tarfile.SYMTYPE:
            path.symlink_to(inode.target)
        elif inode.kind == tarfile.LNKTYPE:
            path.hardlink_to(target / inode.target)
        elif inode.kind == tarfile.REGTYPE:
            path.write_bytes(inode.data)
            path.chmod(inode.mode | 0o400)
    for path in [target, *target.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return target


def removed(path: Path) -> None:
    """Take a folder away again."""
    shutil.rmtree(path)
