"""The folders below which artifacts may be placed, and whether a destination lies there, links followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pxe_fetch.errors import PolicyError


class AllowedRoots:
    """`allowed_roots` of the configuration, and where they really are."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._said = ", ".join(roots)
        self._written = tuple(f"{root.rstrip('/')}/" for root in roots)
        self._real = tuple(f"{os.path.realpath(root).rstrip('/')}/" for root in roots)
        self._seen: dict[str, tuple[int, int, str]] = {}  # folder -> device and inode, and where it really is

    def check(self, dest: Path) -> bool:
        """Raise PolicyError unless `dest`, and what its parents lead to as they are now, lie below a root.

        Gives whether its folder is there.
        """
        text = str(dest)
        if not text.startswith(self._written):
            raise PolicyError(f"{dest} is not below any of allowed_roots ({self._said})")
        directory, _, name = text.rpartition("/")
        place, is_there = self._real_place(directory)
        real = f"{place}/{name}"
        if not real.startswith(self._real):
            raise PolicyError(f"{dest} leads by a symbolic link to {real}, outside allowed_roots ({self._said})")
        return is_there

    def _real_place(self, directory: str) -> tuple[str, bool]:
        """Where `directory` really is, and whether it is one.

        That is looked up once for as long as the name leads to the same.
        """
        try:
            status = os.stat(directory)  # noqa: PTH116  for each of thousands of files
        except OSError:
            return os.path.realpath(directory), False
        device, inode, real = self._seen.get(directory, (0, 0, ""))
        if (device, inode) != (status.st_dev, status.st_ino):
            real = _real(directory)
            self._seen[directory] = status.st_dev, status.st_ino, real
        return real, stat.S_ISDIR(status.st_mode)


def _real(directory: str) -> str:
    """Where `directory` really is; what does not exist yet counts as it is written.

    The kernel knows at once what `os.path.realpath` asks it for name by name.
    """
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return os.path.realpath(directory)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:  # a sandbox without /proc
        return os.path.realpath(directory)
    finally:
        os.close(descriptor)
