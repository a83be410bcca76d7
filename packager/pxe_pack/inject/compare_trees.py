"""Compare two listings of a tree as streams. Both are in the order of squashfs directories, which are sorted."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from pxe_pack.image.tree import Inode
from pxe_pack.payload import Payload


def unexplained_differences(old: Iterator[Inode], new: Iterator[Inode], payload: Payload) -> Iterator[str]:
    """One line per difference in type, mode, owner, size, time or link target that `payload` does not explain.

    Stops at the first name that only one side has, because the streams may be out of step after it.
    """
    expected = {entry.path: entry for entry in payload.entries}
    kept = (inode for inode in old if inode.path not in expected and not payload.is_replaced(inode.path))
    for now in new:
        if entry := expected.pop(now.path, None):
            if stat.S_IFMT(entry.mode) != stat.S_IFMT(now.mode):
                yield f"/{now.path} has the wrong file type"
            continue
        if payload.is_replaced(now.path):
            yield f"/{now.path} is left over from a previous pack"
            continue
        was = next(kept, None)
        if was is None or was.path != now.path:
            yield f"/{now.path} is new" + (f", or /{was.path} is missing" if was else "")
            return
        if _facts(was) != _facts(now):
            yield f"/{was.path} was {_facts(was)}, is {_facts(now)}"
    yield from (f"/{inode.path} is missing" for inode in kept)
    yield from (f"/{path} is missing" for path in expected)


def _facts(inode: Inode) -> tuple[str | int, ...]:
    # a directory's size is that of its listing, which changes with its content
    size = "" if stat.S_ISDIR(inode.mode) else inode.size
    return (oct(inode.mode), inode.uid, inode.gid, size, inode.mtime, inode.target)
