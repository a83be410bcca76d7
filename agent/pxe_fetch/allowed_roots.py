"""The directories below which artifacts may be installed, and the opening of a destination's folder there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pxe_fetch.contract.paths import PROTECTED, protected_place
from pxe_fetch.errors import CannotCreateError, PolicyError
from pxe_fetch.filesystem import NOT_A_FOLDER, Folder, real_path, translate_error

_KEPT = 16  # folders that stay open: many artifacts may go to one of them


class AllowedRoots:
    """`allowed_roots` of the configuration, with the links in their own paths resolved once, at the start.

    Links below them are resolved as well, but only a path without links is ever opened: one that is put in place after
    the check is not followed.
    """

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._listed = ", ".join(roots)
        self._roots = {f"{root.rstrip('/')}/": f"{os.path.realpath(root).rstrip('/')}/" for root in roots}
        folders = {folder: os.path.realpath(folder) for folder in {place.rpartition("/")[0] for place in PROTECTED}}
        real = [folders[folder] + slash + name for folder, slash, name in (one.rpartition("/") for one in PROTECTED)]
        self._protected = tuple(f"{place}/" for place in {*PROTECTED, *real})
        self._all_protected = "\n".join(("", *self._protected))
        # Of a bind mount of one, the path says nothing.
        self._folders = frozenset(filter(None, map(_identity, PROTECTED)))
        self._resolved: dict[str, str] = {}  # folder as configured -> without links, when it was last looked at
        self._kept: dict[str, Folder] = {}  # by path; until `close`

    def check(self, dest: Path) -> str:
        """The path of the folder of `dest` with all links resolved now; missing parents count as written.

        Raises PolicyError unless `dest` is below a root, both as written and resolved, and in no protected place.
        """
        text = str(dest)
        if not text.startswith(tuple(self._roots)):
            raise PolicyError(f"{dest} is not below any of allowed_roots ({self._listed})")
        parent, _, name = text.rpartition("/")
        folder = self._resolved.get(parent) or real_path(parent or "/")
        real = f"{folder.rstrip('/')}/{name}"
        if not real.startswith(tuple(self._roots.values())):
            raise PolicyError(f"{dest} leads through a symbolic link to {real}, outside allowed_roots ({self._listed})")
        for path in (f"{text}/", f"{real}/"):
            is_in_one = path.startswith(self._protected) or protected_place(path[:-1])
            if is_in_one or f"\n{path}" in self._all_protected:  # or contains one
                raise PolicyError(f"{dest} is refused: {path[:-1]} belongs to the system, and no artifact goes there")
        self._resolved[parent] = folder
        return folder

    @contextmanager
    def open(self, dest: Path) -> Iterator[Folder]:
        """The folder of `dest`, opened without following a link; missing parents are created.

        Raises PolicyError as `check` does, and FetchError if it cannot be opened or created.
        """
        folder = self._open(dest)
        if len(self._kept) < _KEPT:
            self._kept.setdefault(folder.path, folder)
        try:
            yield folder
        finally:
            if folder is not self._kept.get(folder.path):
                folder.close()

    def close(self) -> None:
        """Close the folders that were kept open; nobody uses them any more."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _open(self, dest: Path) -> Folder:
        for _ in range(2):
            folder = self.check(dest)
            kept = self._kept.get(folder)
            if kept and kept.is_in_place():
                return kept
            try:
                return Folder(folder, refused=self._folders)
            except OSError as error:
                failure = error
            self._resolved.pop(str(dest.parent), None)  # links may have been made since it was looked at
        if failure.errno in NOT_A_FOLDER:
            raise CannotCreateError(f"cannot create {dest}: {folder} is not a directory, or is below a file")
        raise translate_error(failure, f"cannot open or create the directory {folder}", where=folder)


def _identity(folder: str) -> tuple[int, int] | None:
    """Device and inode of a folder, the same wherever it is mounted; None if it is missing."""
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino
