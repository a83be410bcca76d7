"""The tree of a root filesystem: one Protocol for all formats, and how links in it are followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pxe_pack.image.limits import Limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Inode:
    """A name in the tree. `path` has no leading slash (the root's is empty); `mode` is st_mode, including the type."""

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
        """Every name, parents first. All methods raise InputError or WorkError if the filesystem is damaged."""

    def stat(self, paths: Sequence[str]) -> dict[str, Inode]:
        """The existing ones of `paths` (no leading slash, no links in them), with their parents."""

    def inside(self, folder: str) -> Sequence[Inode]:
        """The direct entries of a directory (no links in its path); empty if there is no such directory."""

    def cat(self, path: str, *, limit: Limit = Limit.SQUASHFS_FILE) -> bytes:
        """The content of a regular file. Raises WorkError if there is no such file, and LimitError if it is larger."""

    def resolve(self, path: str) -> str:
        """`path` with symbolic links resolved, as for a process with this tree as its root.

        Missing components are kept as they are. Resolving stops after 256 steps, so a loop of links is harmless.
        """


class Name(Protocol):
    """What resolving needs to know of a name: its st_mode, and the target of a symbolic link."""

    @property
    def mode(self) -> int: ...
    @property
    def target(self) -> str: ...


def resolved(path: str, look: Callable[[str], Name | None]) -> str:
    """Implementation of `RootTree.resolve`; `look` returns what is at a path, or None."""
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
    """The root, each directory on the way to `path`, and `path` itself."""
    return ["", *(path[:index] for index, letter in enumerate(path) if letter == os.sep), *([path] if path else [])]


@dataclass(frozen=True, kw_only=True)
class ListedTree:
    """A RootTree with all names in memory, such as that of an initrd."""

    inodes: Mapping[str, Inode]  # complete before the first look-up
    read: Callable[[str], bytes]

    def walk(self) -> Iterator[Inode]:
        return iter(self.inodes.values())

    def stat(self, paths: Sequence[str]) -> dict[str, Inode]:
        wanted = dict.fromkeys(step for path in paths for step in steps(path))
        return {path: self.inodes[path] for path in wanted if path in self.inodes}

    def inside(self, folder: str) -> list[Inode]:
        return self._folders.get(folder, [])

    @cached_property
    def _folders(self) -> dict[str, list[Inode]]:
        folders: dict[str, list[Inode]] = {}
        for path, inode in self.inodes.items():
            if path:
                folders.setdefault(path.rpartition("/")[0], []).append(inode)
        return folders

    def cat(self, path: str, *, limit: Limit = Limit.SQUASHFS_FILE) -> bytes:
        content = self.read(path)
        limit.check(len(content))
        return content

    def resolve(self, path: str) -> str:
        return resolved(path, self.inodes.get)


def regular_file(tree: RootTree, path: str, *, limit: Limit = Limit.SQUASHFS_FILE) -> bytes | None:
    """The content of the file at the absolute or relative `path`, following links; None if there is no such file.

    Raises LimitError if it is larger than `limit`.
    """
    real = tree.resolve(path.lstrip("/"))
    inode = tree.stat([real]).get(real)
    return tree.cat(real, limit=limit) if inode and stat.S_ISREG(inode.mode) else None


def text_file(tree: RootTree, path: str) -> str:
    """The text of such a file, a configuration or a script; empty if it does not exist. Raises LimitError."""
    return (regular_file(tree, path, limit=Limit.ROOT_TEXT) or b"").decode(errors="replace")
