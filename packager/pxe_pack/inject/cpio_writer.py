"""Write a cpio archive in the "newc" format, with all files owned by root.

Sources: Linux, Documentation/driver-api/early-userspace/buffer-format.rst; cpio(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pxe_pack.image.initrd.cpio import TRAILER
from pxe_pack.payload import Entry


def archive(entries: Iterable[Entry], *, mtime: int) -> Iterator[bytes]:
    """The archive of `entries` in pieces, including the trailer. Its length is a multiple of 4 bytes.

    Parents must come first. All entries get `mtime` (seconds since the epoch). Raises OSError.
    """
    for number, entry in enumerate(entries, start=1):
        yield from _member(entry, inode=number, mtime=mtime)
    yield _header(TRAILER, inode=0, mode=0, mtime=0, size=0)


def _member(entry: Entry, *, inode: int, mtime: int) -> Iterator[bytes]:
    content = b""
    if stat.S_ISLNK(entry.mode):
        content = os.fsencode(entry.target)
    elif stat.S_ISREG(entry.mode):
        content = entry.content.read_bytes() if isinstance(entry.content, Path) else entry.content
    yield _header(entry.path, inode=inode, mode=entry.mode, mtime=mtime, size=len(content))
    yield content + bytes(-len(content) % 4)


def _header(path: str, *, inode: int, mode: int, mtime: int, size: int) -> bytes:
    name = os.fsencode(path) + b"\0"
    # more than 1 for a file would make the kernel look for a hard link to it
    links = 2 if stat.S_ISDIR(mode) else 1
    owner, devices, checksum = (0, 0), (0, 0, 0, 0), 0
    numbers = (inode, mode, *owner, links, mtime, size, *devices, len(name), checksum)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return head + bytes(-len(head) % 4)
