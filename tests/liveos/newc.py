"""A cpio archive in the "newc" format, as the kernel unpacks it (kernel: early-userspace/buffer-format.rst)."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from liveos.programs import EPOCH


@dataclass(frozen=True)
class Entry:
    """One member: `mode` with its type bits; `data` is a file's content or a symlink's target."""

    path: str
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)  # major, minor of a device node
    links: int = 0  # names of the inode; 0: one, and two of a directory


TRAILER = Entry("TRAILER!!!", 0)


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive, its trailer included, padded to 512 bytes."""
    out = b"".join(member(entry, inode=number) for number, entry in enumerate([*entries, TRAILER], start=1))
    return out + bytes(-len(out) % 512)


def member(entry: Entry, *, inode: int) -> bytes:
    """One member, padded. Names that are links of one another have the same `inode`, and the last has the data."""
    name = entry.path.encode("utf-8", "surrogateescape") + b"\0"
    links = entry.links or (2 if stat.S_ISDIR(entry.mode) else 1)
    # inode, mode, uid, gid, nlink, mtime, size, device and rdev (major, minor each), name size, checksum
    numbers = [inode, entry.mode, entry.uid, entry.gid, links, EPOCH, len(entry.data), 0, 0, *entry.device]
    head = b"070701" + b"".join(b"%08X" % value for value in [*numbers, len(name), 0]) + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)
