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


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive, its trailer included, padded to 512 bytes."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        # inode, mode, uid, gid, nlink, mtime, size, device and rdev (major, minor each), name size, checksum
        numbers = [number, entry.mode, 0, 0, links, EPOCH, len(entry.data), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08X" % value for value in numbers) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    return bytes(out + bytes(-len(out) % 512))
