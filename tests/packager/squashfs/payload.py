"""What the tests graft, and what the image must contain afterwards."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from packager.squashfs.trees import Fact, Tree
from pxe_pack.squashfs import (
    Addition,
    Device,
    File,
    Image,
    Inode,
    Kind,
    NewDirectory,
    NewFile,
    NewSymlink,
    Symlink,
)

LABEL = {"security.selinux": b"system_u:object_r:unit_t:s0\0"}
WHEN = 1_600_000_000
TYPES = {
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FILE: tarfile.REGTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.BLOCK_DEVICE: tarfile.BLKTYPE,
    Kind.CHARACTER_DEVICE: tarfile.CHRTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


def payload(folder: Path) -> list[Addition]:
    """An agent's files and some deliberately difficult ones; no name exists in the image yet."""
    agent = folder / "agent"
    agent.write_bytes(Random(1).randbytes(400_000) + b"text " * 100_000)
    return [
        NewFile(path="/usr/lib/pxe-fetch/agent", mode=0o4755, mtime=WHEN, content=agent, xattrs=LABEL),
        NewDirectory(path="/usr/lib/pxe-fetch", mode=0o2755, uid=12, gid=70_001, mtime=WHEN, xattrs=LABEL),
        NewDirectory(path="usr/lib/pxe-fetch/empty", mode=0o700, mtime=0),
        NewDirectory(path="usr", mode=0o700, uid=9, mtime=5),  # is there: stays as it is
        NewFile(path="usr/lib/pxe-fetch/nothing", mode=0, mtime=2**32 - 1, content=b""),
        NewFile(path="usr/lib/pxe-fetch/holes", mode=0o600, mtime=WHEN, content=bytes(1 << 21) + b"x" + bytes(1 << 20)),
        NewFile(path="usr/lib/pxe-fetch/hollow", mode=0o600, mtime=WHEN, content=bytes(1 << 20)),
        NewDirectory(path="etc/pxe-fetch", mode=0o755, mtime=WHEN),
        NewFile(path="etc/pxe-fetch/fetch.yaml", mode=0o644, mtime=WHEN, content=b"version: 1\n", uid=2**32 - 2),
        NewFile(path="usr/lib/systemd/system/pxe-fetch.service", mode=0o644, mtime=WHEN, content=b"[Unit]\n"),
        NewSymlink(path="usr/lib/0link", mode=0o777, mtime=WHEN, target="../../etc/☃", gid=3, xattrs=LABEL),
        NewSymlink(path="zzz", mode=0o777, mtime=WHEN, target="/" + "t" * 4000),
        NewFile(path="A \udcfe", mode=0o644, mtime=WHEN, content=b"sorts first, and is not UTF-8"),
    ]


def facts(additions: Sequence[Addition]) -> dict[str, Fact]:
    """Path -> what an independent reader must report for each of `additions`."""
    found: dict[str, Fact] = {}
    for one in additions:
        content = b""
        if isinstance(one, NewFile):
            content = one.content if isinstance(one.content, bytes) else one.content.read_bytes()
        found[one.path.lstrip("/")] = Fact(
            type={NewDirectory: tarfile.DIRTYPE, NewFile: tarfile.REGTYPE, NewSymlink: tarfile.SYMTYPE}[type(one)],
            mode=0o777 if isinstance(one, NewSymlink) else one.mode,
            uid=one.uid,
            gid=one.gid,
            mtime=one.mtime,
            size=len(content),
            link=one.target if isinstance(one, NewSymlink) else "",
            device=(0, 0),
            xattrs=tuple(sorted((f"SCHILY.xattr.{name}", value.decode()) for name, value in one.xattrs.items())),
            digest=hashlib.sha256(content).hexdigest() if isinstance(one, NewFile) else "",
        )
    return found


def ours(path: Path) -> Tree:
    """What our own reader finds in an image, in the same form as the independent readers."""
    found: dict[str, Fact] = {}
    names: dict[int, set[str]] = {}
    with Image.open(path) as image:
        for name, inode in image.walk():
            found[name] = _fact(image, inode)
            names.setdefault(inode.number, set()).add(name)
    return Tree(facts=found, groups={frozenset(group) for group in names.values() if len(group) > 1})


def _fact(image: Image, inode: Inode) -> Fact:
    encoded = inode.device if isinstance(inode, Device) else 0
    digest = hashlib.sha256()
    if isinstance(inode, File):
        for chunk in image.chunks(inode):
            digest.update(chunk)
    return Fact(
        type=TYPES[inode.kind],
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        mtime=inode.mtime,
        size=inode.size if isinstance(inode, File) else 0,
        link=inode.target.decode("utf-8", "surrogateescape") if isinstance(inode, Symlink) else "",
        # new_encode_dev(): twelve bits of major between the low eight and the high twelve of minor.
        device=(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00),
        xattrs=tuple(
            sorted(
                (f"SCHILY.xattr.{name}", value.decode("utf-8", "surrogateescape"))
                for name, value in image.xattrs(inode).items()
            )
        ),
        digest=digest.hexdigest() if isinstance(inode, File) else "",
    )
