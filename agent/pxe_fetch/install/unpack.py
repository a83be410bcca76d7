"""Unpack the members of an archive below a folder, checking each so that nothing can get outside."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from pxe_fetch.contract.tar import MAX_DEPTH, TarReader, file_mode, folder_mode, leads_outside
from pxe_fetch.errors import PolicyError

_BLOCK = 256 * 1024  # bytes of a file read and written at a time
Made = TypeVar("Made")


class Unpacker:
    """Creates members below the folder `staging`, which is empty at first and used by nobody else.

    Every parent is a real folder, never a link; a link's target is relative, with `..` only at its front, and no more
    of them than the link is deep. So by induction no path in the tree leads out of it, however it is resolved, and the
    cases that tarfile's filters missed (CVE-2025-4517, 4138, 4330) cannot arise. A folder made here stays a folder, and
    nothing else becomes one, so a parent is checked only once.
    """

    def __init__(self, staging: Path) -> None:
        self._staging = str(staging)
        self._parent = ""  # the last one checked: members of a folder mostly follow each other

    def add(self, archive: TarReader, member: tarfile.TarInfo) -> None:
        """Create `member`, the last one that `archive` yielded.

        Raises PolicyError if it could lead outside or has an unknown type, OSError, and tarfile's errors.
        """
        path = _path(member.name, what=f"the member {member.name!r}")
        if not path:
            if member.isdir():
                return
            raise PolicyError(f"the member {member.name!r} would replace the whole tree")
        self._make_parent(path.rpartition("/")[0], member)
        target = f"{self._staging}/{path}"
        if member.isdir():
            if not _made_folder(target):
                raise _two_kinds(member)
            os.chmod(target, folder_mode(member.mode))  # noqa: PTH101  one of thousands
        elif member.isreg():
            descriptor = self._in_place(lambda: _create(target), target, member)
            try:
                _fill(descriptor, archive.content(member), member)
            finally:
                os.close(descriptor)
        elif member.issym():
            if leads_outside(member.linkname, depth=path.count("/")):
                raise PolicyError(f"the link {member.name!r} leads out of the archive, or could: {member.linkname!r}")
            self._in_place(lambda: os.symlink(member.linkname, target), target, member)  # noqa: PTH211
        elif member.islnk():
            linked = self._linked(member)
            if linked == target:  # tar(1) archives a file named twice on its command line this way
                return
            self._in_place(lambda: os.link(linked, target), target, member)
        else:
            raise PolicyError(f"the member {member.name!r} is not a file, folder or link")

    def _make_parent(self, parent: str, member: tarfile.TarInfo) -> None:
        if parent == self._parent:
            return
        path = ""
        for name in parent.split("/") if parent else ():
            path = f"{path}/{name}"
            if not _made_folder(self._staging + path):
                raise PolicyError(f"the member {member.name!r} is below {path[1:]!r}, which is not a directory")
        self._parent = parent

    def _in_place(self, make: Callable[[], Made], target: str, member: tarfile.TarInfo) -> Made:
        """The result of `make`, after removing an earlier member at `target`: the later of two wins."""
        try:
            return make()
        except FileExistsError:
            if _is_folder(target):
                raise _two_kinds(member) from None
        os.unlink(target)  # noqa: PTH108  so nothing is written through a link
        return make()

    def _linked(self, member: tarfile.TarInfo) -> str:
        """The file below the staging folder that the hard link refers to."""
        path = _path(member.linkname, what=f"the hard link {member.name!r}")
        *parents, name = path.split("/")
        target = self._staging
        are_folders = all(_is_folder(target := f"{target}/{parent}") for parent in parents)
        target = f"{target}/{name}"
        try:
            is_file = are_folders and stat.S_ISREG(os.lstat(target).st_mode)
        except OSError:
            is_file = False
        if not is_file:
            raise PolicyError(
                f"the hard link {member.name!r} refers to {member.linkname!r}, which is not a file unpacked before it"
            )
        return target


def _path(name: str, *, what: str) -> str:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise PolicyError(f"{what} leads out of the archive: {name!r}")
    if len(parts) > MAX_DEPTH:
        raise PolicyError(f"the archive has a member that is {len(parts)} folders deep; the limit is {MAX_DEPTH}")
    return "/".join(parts)


def _made_folder(path: str) -> bool:
    """Create a folder unless something is there; whether there is a folder now."""
    try:
        os.mkdir(path)  # noqa: PTH102
    except FileExistsError:
        return _is_folder(path)
    return True


def _is_folder(path: str) -> bool:
    """Whether it is a folder, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _fill(descriptor: int, content: IO[bytes], member: tarfile.TarInfo) -> None:
    """Write the new, empty file, with the mode and time of `member`."""
    left = member.size
    while left:
        piece = memoryview(content.read(min(left, _BLOCK)))
        if not piece:
            raise EOFError(f"the member {member.name!r} is cut off")
        left -= len(piece)
        if member.sparse and not piece.tobytes().strip(b"\0"):
            os.lseek(descriptor, len(piece), os.SEEK_CUR)
            continue
        while piece:
            piece = piece[os.write(descriptor, piece) :]
    if member.sparse:
        os.ftruncate(descriptor, member.size)
    os.fchmod(descriptor, file_mode(member.mode))
    with suppress(OSError):  # a time that this file system cannot store: the file keeps the current one
        os.utime(descriptor, (member.mtime, member.mtime))


def _two_kinds(member: tarfile.TarInfo) -> PolicyError:
    return PolicyError(f"the member {member.name!r} and another of the same name are a directory and something else")
