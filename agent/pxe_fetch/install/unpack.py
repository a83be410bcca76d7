"""Unpack the members of an archive below a folder, checking each so that nothing can get outside."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self, TypeVar

from pxe_fetch.chunkmap import Check
from pxe_fetch.contract.paths import parents
from pxe_fetch.contract.tar import TarReader, file_mode, folder_mode, member_path, refusal
from pxe_fetch.errors import CannotCreateError, PolicyError
from pxe_fetch.filesystem import FOLDER_MODE, NEW_FILE, NOT_A_FOLDER, OPEN_FOLDER, closing_fd

Made = TypeVar("Made")


class Unpacker:
    """Creates members below the open folder `staging`, which is empty at first and used by nobody else.

    Every parent is a real folder, opened from the top without following a link; a link's target is relative, with `..`
    only at its front, and no more of them than the link is deep. So by induction no path in the tree leads out of it,
    however it is resolved, and the cases that tarfile's filters missed (CVE-2025-4517, 4138, 4330) cannot arise.
    """

    def __init__(self, staging: int, *, uid: int | None, gid: int | None, check: Check) -> None:
        """Members get the owner `uid` and the group `gid` where these are not None; `check` is called now and then."""
        self._staging = staging
        self._owner = None if uid is None and gid is None else (-1 if uid is None else uid, -1 if gid is None else gid)
        self._check = check
        self._parent = ""  # the last one opened: members of a folder mostly follow each other
        self._folder = os.dup(staging)
        # The paths made so far, where the file system may take another name for one of them.
        self._made: set[str] | None = set() if _folds_names(staging) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    def add(self, archive: TarReader, member: tarfile.TarInfo) -> None:
        """Create `member`, the last one that `archive` yielded.

        Raises PolicyError if it could lead outside or has an unknown type, OSError, and tarfile's errors.
        """
        if reason := refusal(member):
            raise PolicyError(reason)
        path = member_path(member.name)
        if not path:
            return
        parent, _, name = path.rpartition("/")
        if parent != self._parent:
            self._enter(parent, member)
        if member.isdir():
            self._make_folder(path, member)
        elif member.isreg():
            opened = self._in_place(lambda: os.open(name, NEW_FILE, 0o600, dir_fd=self._folder), path, member)
            try:
                self._fill(opened, archive.content(member), member)
            finally:  # closing_fd costs more, a thousand times
                os.close(opened)
        elif member.issym():
            self._in_place(lambda: os.symlink(member.linkname, name, dir_fd=self._folder), path, member)
            if self._owner:
                os.chown(name, *self._owner, dir_fd=self._folder, follow_symlinks=False)
        else:
            self._link(name, path, member)

    def _enter(self, parent: str, member: tarfile.TarInfo) -> None:
        """Make `parent` the current folder; what is missing of it is created."""
        try:
            opened = self._walk(parent, self._made_folder)
        except OSError as error:
            if error.errno not in NOT_A_FOLDER:
                raise
            message = f"the member {member.name!r} is below {parent!r}, which is not a directory, or is below a link"
            raise PolicyError(message) from None
        os.close(self._folder)
        self._folder, self._parent = opened, parent

    def _walk(self, path: str, step: Callable[[str, int], int]) -> int:
        """The folder `path`, opened from the top, by one `step` for each folder on the way, which has its path."""
        opened = os.dup(self._staging)
        for folder in [*parents(f"/{path}"), f"/{path}"] if path else ():
            with closing_fd(opened):
                opened = step(folder[1:], opened)
        return opened

    def _made_folder(self, path: str, parent: int) -> int:
        """The folder `path`, which is in the folder `parent`, opened; created if nothing is there."""
        try:
            os.mkdir(path.rpartition("/")[2], FOLDER_MODE, dir_fd=parent)
        except FileExistsError:
            self._check_name(path)
            return _opened(path, parent)
        if self._made is not None:
            self._made.add(path)
        opened = _opened(path, parent)
        if self._owner:
            os.fchown(opened, *self._owner)
        return opened

    def _make_folder(self, path: str, member: tarfile.TarInfo) -> None:
        try:
            opened = self._made_folder(path, self._folder)
        except OSError as error:
            raise _two_kinds(member) if error.errno in NOT_A_FOLDER else error from None
        os.fchmod(opened, folder_mode(member.mode))
        os.close(opened)

    def _in_place(self, make: Callable[[], Made], path: str, member: tarfile.TarInfo) -> Made:
        """The result of `make`, after removing an earlier member `path`: the later of two wins."""
        try:
            made = make()
        except FileExistsError:
            self._check_name(path)
            try:
                os.unlink(path.rpartition("/")[2], dir_fd=self._folder)  # so nothing is written through a link
            except IsADirectoryError:
                raise _two_kinds(member) from None
            made = make()
        if self._made is not None:
            self._made.add(path)
        return made

    def _check_name(self, path: str) -> None:
        """Raise CannotCreateError if what is at `path` already was made under another name."""
        if self._made is not None and path not in self._made:
            raise CannotCreateError(
                f"the archive has {path!r} and the same in another spelling, which are one file on the file system of "
                "dest: choose a dest on one that distinguishes them"
            )

    def _link(self, name: str, path: str, member: tarfile.TarInfo) -> None:
        """Make the hard link `name` in the current folder to a file that was unpacked before."""
        linked = member_path(member.linkname)
        parent, _, target = linked.rpartition("/")
        refused = f"the hard link {member.name!r} refers to {member.linkname!r}, which is not a file unpacked before it"
        try:
            opened = self._walk(parent, _opened)
        except OSError:
            raise PolicyError(refused) from None

        def make() -> None:
            os.link(target, name, src_dir_fd=opened, dst_dir_fd=self._folder, follow_symlinks=False)

        with closing_fd(opened):
            if not _is_file(target, opened):
                raise PolicyError(refused)
            if linked != path:  # tar(1) archives a file named twice on its command line as a link to itself
                self._in_place(make, path, member)

    def _fill(self, descriptor: int, content: Iterator[bytes], member: tarfile.TarInfo) -> None:
        """Write the new, empty file, with the owner, and the mode and time of `member`."""
        for piece in content:
            self._check()
            if member.sparse and not piece.strip(b"\0"):
                os.lseek(descriptor, len(piece), os.SEEK_CUR)
                continue
            written = os.write(descriptor, piece)
            while written < len(piece):
                written += os.write(descriptor, memoryview(piece)[written:])
        if member.sparse:
            os.ftruncate(descriptor, member.size)
        if self._owner:
            os.fchown(descriptor, *self._owner)
        os.fchmod(descriptor, file_mode(member.mode))
        with suppress(OSError):  # a time that this file system cannot store: the file keeps the current one
            os.utime(descriptor, (member.mtime, member.mtime))


def _opened(path: str, parent: int) -> int:
    """The folder `path`, which is in the folder `parent`."""
    return os.open(path.rpartition("/")[2], OPEN_FOLDER, dir_fd=parent)


def _is_file(name: str, folder: int) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def _folds_names(folder: int) -> bool:
    """Whether other names lead to a file in the empty `folder`: in other case, or in another of Unicode's forms.

    FAT and NTFS ignore case, as ext4 and tmpfs do in a folder with the attribute `F` (chattr(1)), which also normalise.
    """
    probe, others = b"pxe-fetch-\xc3\xa9", (b"PXE-FETCH-\xc3\xa9", b"pxe-fetch-e\xcc\x81")  # an e with its accent
    os.close(os.open(probe, NEW_FILE, 0o600, dir_fd=folder))
    try:
        return any(os.access(other, os.F_OK, dir_fd=folder) for other in others)
    finally:
        os.unlink(probe, dir_fd=folder)


def _two_kinds(member: tarfile.TarInfo) -> PolicyError:
    return PolicyError(f"the member {member.name!r} and another of the same name are a directory and something else")
