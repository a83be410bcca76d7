"""What a graft adds to an image: directories, files and symlinks, each with all of its attributes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs import inodes, paths, xattrs

LONGEST_PATH: Final = 4095  # bytes: PATH_MAX without its end
LONGEST_NAME: Final = 255  # bytes: NAME_MAX; the format has room for one more, which nothing can open
_LARGEST: Final = 0xFFFF_FFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """One path to be in the image, from its root, with or without a `/` in front."""

    path: str
    mode: int  # permissions, with set-id and sticky bits
    uid: int = 0
    gid: int = 0
    mtime: int  # seconds since 1970
    xattrs: Mapping[str, bytes] = field(default_factory=dict)  # with their prefix: "security.selinux"

    def problems(self) -> Iterator[Problem]:
        """Why a squashfs can't hold it."""
        names = paths.parts(paths.encode(self.path))
        if not names or b".." in names or "\0" in self.path:
            yield self._problem("is not a path from the image's root without `..`")
        if any(len(name) > LONGEST_NAME for name in names) or len(b"/".join(names)) > LONGEST_PATH:
            yield self._problem(f"is longer than {LONGEST_NAME} bytes a name, or {LONGEST_PATH} bytes in all")
        if not 0 <= self.mode <= inodes.PERMISSIONS:
            yield self._problem(f"has mode {self.mode:o}, which is more than permissions")
        # The largest number of 32 bits is no owner: to the kernel it says "leave it as it is".
        if not all(0 <= number < _LARGEST for number in (self.uid, self.gid)) or not 0 <= self.mtime <= _LARGEST:
            yield self._problem("has an owner or a time that does not fit into 32 bits")
        if reason := xattrs.unwritable(self.xattrs):
            yield self._problem(reason)

    def _problem(self, what: str) -> Problem:
        return Problem(reference="graft-addition", message=f"{self.path} can't be added: it {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDirectory(Addition):
    """A directory. One that is there keeps its attributes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFile(Addition):
    """A regular file. It takes the place of anything but a directory."""

    content: bytes | Path

    def problems(self) -> Iterator[Problem]:
        yield from Addition.problems(self)
        if isinstance(self.content, Path):
            try:
                regular = stat.S_ISREG(self.content.stat().st_mode) and os.access(self.content, os.R_OK)
            except OSError:
                regular = False
            if not regular:
                yield self._problem(f"should have the content of {self.content}, which is not a file that can be read")


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSymlink(Addition):
    """A symbolic link. It takes the place of anything but a directory."""

    target: str

    def problems(self) -> Iterator[Problem]:
        yield from Addition.problems(self)
        if not 0 < len(paths.encode(self.target)) <= min(LONGEST_PATH, inodes.LONGEST_TARGET) or "\0" in self.target:
            yield self._problem(f"leads to a target of {len(self.target)} characters")
