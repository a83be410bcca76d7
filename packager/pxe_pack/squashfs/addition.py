"""What a graft adds to an image: directories, files and symlinks with all their attributes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs import inodes, paths, xattrs

LONGEST_PATH: Final = 4095  # bytes: PATH_MAX without the NUL
LONGEST_NAME: Final = 255  # bytes: NAME_MAX; the format allows one more, but such a name cannot be opened
_LARGEST: Final = 0xFFFF_FFFF
_SHOWN: Final = 200  # characters of a path: what is wrong with it comes behind


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """One path to add to the image, relative to its root; a leading `/` is allowed."""

    path: str
    mode: int  # permissions, with set-id and sticky bits
    uid: int = 0
    gid: int = 0
    mtime: int  # seconds since 1970
    xattrs: Mapping[str, bytes] = field(default_factory=dict)  # with their prefix: "security.selinux"

    def problems(self) -> Iterator[Problem]:
        """One problem for each reason why a squashfs cannot hold it."""
        names = paths.parts(paths.encode(self.path))
        if not names or b".." in names or "\0" in self.path:
            yield self._problem("must be a path below the image's root, without `..`")
        if any(len(name) > LONGEST_NAME for name in names) or len(b"/".join(names)) > LONGEST_PATH:
            yield self._problem(f"exceeds {LONGEST_NAME} bytes in one name, or {LONGEST_PATH} bytes in total")
        if not 0 <= self.mode <= inodes.PERMISSIONS:
            yield self._problem(f"has mode {self.mode:o}, which includes more than permission bits")
        # 0xFFFFFFFF is not a valid owner: chown(2) takes it to mean "leave unchanged".
        if not all(0 <= number < _LARGEST for number in (self.uid, self.gid)) or not 0 <= self.mtime <= _LARGEST:
            yield self._problem("has an owner or a time that does not fit into 32 bits")
        if reason := xattrs.unwritable(self.xattrs):
            yield self._problem(reason)

    def _problem(self, what: str) -> Problem:
        shown = self.path if len(self.path) <= _SHOWN else f"{self.path[:_SHOWN]}…"
        return Problem(reference="graft-addition", message=f"cannot add {shown}: it {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDirectory(Addition):
    """A directory. An existing one keeps its attributes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFile(Addition):
    """A regular file. It replaces anything except a directory."""

    content: bytes | Path

    def problems(self) -> Iterator[Problem]:
        yield from Addition.problems(self)
        if isinstance(self.content, Path):
            try:
                regular = stat.S_ISREG(self.content.stat().st_mode) and os.access(self.content, os.R_OK)
            except OSError:
                regular = False
            if not regular:
                yield self._problem(f"takes its content from {self.content}, which is not a readable file")


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSymlink(Addition):
    """A symbolic link. It replaces anything except a directory."""

    target: str

    def problems(self) -> Iterator[Problem]:
        yield from Addition.problems(self)
        if not 0 < len(paths.encode(self.target)) <= min(LONGEST_PATH, inodes.LONGEST_TARGET) or "\0" in self.target:
            yield self._problem(f"has a link target of {len(self.target)} characters")
