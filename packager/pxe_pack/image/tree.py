"""The tree of a root filesystem, wherever it lies: one Protocol, and how links in it are followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Inode:
    """A name in the tree. `path` has no leading slash, the root's is empty; `mode` is st_mode, with the type."""

    path: str
    mode: int
    uid: int
    gid: int
    size: str  # bytes; of a device, "major,minor"
    mtime: str  # seconds since the epoch
    target: str = ""  # of a symbolic link


class RootTree(Protocol):
    """A root filesystem's tree."""

    def walk(self) -> Iterator[Inode]:
        """Every name, parents first; all of these raise InputError or WorkError when the file system is damaged."""

    def stat(self, paths: Sequence[str]) -> dict[str, Inode]:
        """Those of `paths` (no leading slash, no links on the way) that there are, with their parents."""

    def inside(self, folder: str) -> Sequence[Inode]:
        """What is in a directory (no links on the way), by itself; nothing when there is no such directory."""

    def cat(self, path: str) -> bytes:
        """The content of a regular file. Raises WorkError when there is no such file."""

    def resolve(self, path: str) -> str:
        """`path` without symbolic links, as a process with this tree for its root would find it.

        What does not exist is kept as it is. A loop of links is followed a while and then left.
        """


def resolved(path: str, look: Callable[[str], Inode | None]) -> str:
    """What `RootTree.resolve` gives, for a tree whose names `look` finds."""
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    for _ in range(256):
        if not todo:
            break
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        here = "/".join([*done, part])
        inode = look(here)
        if inode and stat.S_ISLNK(inode.mode):
            if inode.target.startswith("/"):
                done = []
            todo += [name for name in reversed(inode.target.split("/")) if name not in ("", ".")]
        else:
            done.append(part)
    return "/".join(done)


def steps(path: str) -> list[str]:
    """The root, and each directory on the way to `path`, and that."""
    return ["", *(path[:index] for index, letter in enumerate(path) if letter == os.sep), *([path] if path else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedTree:
    """A tree whose names are all in memory, as those of an initrd are once it was read: a RootTree."""

    inodes: Mapping[str, Inode]
    read: Callable[[str], bytes]

    def walk(self) -> Iterator[Inode]:
        return iter(self.inodes.values())

    def stat(self, paths: Sequence[str]) -> dict[str, Inode]:
        wanted = {step for path in paths for step in steps(path)}
        return {path: inode for path, inode in self.inodes.items() if path in wanted}

    def inside(self, folder: str) -> list[Inode]:
        return [inode for path, inode in self.inodes.items() if path and path.rpartition("/")[0] == folder]

    def cat(self, path: str) -> bytes:
        return self.read(path)

    def resolve(self, path: str) -> str:
        return resolved(path, self.inodes.get)
