"""The inodes that a careless repack loses: each a kind of thing that real root filesystems have."""

import io
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from liveos.programs import EPOCH

FOLDER = "opt/special"
_CAP_NET_BIND_SERVICE = 10


@dataclass(frozen=True)
class Inode:
    """One member of a tar stream. `path` is relative to the root; `target` is a link's; `device` is major, minor."""

    path: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def write(self, archive: tarfile.TarFile) -> None:
        """Append this inode to a pax archive; xattrs go as SCHILY.xattr records, as in star(1) and GNU tar."""
        info = tarfile.TarInfo(self.path)
        info.type, info.mode, info.mtime = self.kind, self.mode, EPOCH
        info.uid, info.gid, info.linkname = self.uid, self.gid, self.target
        info.devmajor, info.devminor = self.device
        info.size = len(self.data)
        info.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in self.xattrs.items()
        }
        archive.addfile(info, io.BytesIO(self.data))


def folder(path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Inode:
    """A directory."""
    return Inode(path, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def symlink(path: str, target: str) -> Inode:
    """A symbolic link."""
    return Inode(path, tarfile.SYMTYPE, mode=0o777, target=target)


def file_capability(capability: int) -> bytes:
    """The value of security.capability that permits one capability, effective (VFS_CAP_REVISION_2, capabilities(7))."""
    return struct.pack("<5I", 0x02000001, 1 << capability, 0, 0, 0)


def inodes() -> Iterator[Inode]:
    """The special inodes, parents first."""
    yield folder(FOLDER)
    yield Inode(f"{FOLDER}/setuid", data=b"#!/bin/sh\n", mode=0o4755)
    yield Inode(f"{FOLDER}/setgid", data=b"#!/bin/sh\n", mode=0o2711, gid=4242)
    yield Inode(f"{FOLDER}/odd-owner", data=b"owned by nobody known\n", mode=0o640, uid=64242, gid=3_000_000_000)
    yield Inode(
        f"{FOLDER}/capability",
        data=b"#!/bin/sh\n",
        mode=0o755,
        xattrs={"security.capability": file_capability(_CAP_NET_BIND_SERVICE)},
    )
    yield Inode(
        f"{FOLDER}/user-xattr", data=b"x\n", xattrs={"user.origin": "Zürich".encode(), "user.raw": b"\x00\xff\xfe"}
    )
    yield Inode(f"{FOLDER}/hardlink-a", data=b"one inode, two names\n", mode=0o600)
    yield Inode(f"{FOLDER}/hardlink-b", tarfile.LNKTYPE, mode=0o600, target=f"{FOLDER}/hardlink-a")
    yield Inode(f"{FOLDER}/block-device", tarfile.BLKTYPE, mode=0o660, gid=6, device=(7, 200))
    yield Inode(f"{FOLDER}/character-device", tarfile.CHRTYPE, mode=0o666, device=(1, 3))
    yield Inode(f"{FOLDER}/fifo", tarfile.FIFOTYPE, mode=0o620)
    yield symlink(f"{FOLDER}/symlink", "hardlink-a")
    yield symlink(f"{FOLDER}/dangling", "../nowhere/at all")
    # zeros are stored as holes by squashfs
    yield Inode(f"{FOLDER}/sparse", data=b"start" + bytes(3 << 20) + b"end")
    yield Inode(f"{FOLDER}/empty", mode=0o400)
    yield Inode(f"{FOLDER}/a name with spaces", data=b"spaces\n")
    yield Inode(f"{FOLDER}/naïve-日本語-🦊", data=b"UTF-8\n")
    yield Inode(f"{FOLDER}/{'long-' * 30}name", data=b"longer than a ustar header holds\n")
    yield folder(f"{FOLDER}/empty-directory", mode=0o3751, uid=7, gid=7)
