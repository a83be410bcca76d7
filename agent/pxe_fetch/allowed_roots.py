"""The directories below which artifacts may be installed, and the check of a destination with its links followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pxe_fetch.errors import PolicyError


class AllowedRoots:
    """`allowed_roots` of the configuration, as written and with symbolic links resolved."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._listed = ", ".join(roots)
        self._written = tuple(f"{root.rstrip('/')}/" for root in roots)
        self._real = tuple(f"{os.path.realpath(root).rstrip('/')}/" for root in roots)
        self._resolved: dict[str, tuple[int, int, str]] = {}  # directory -> device, inode and real path

    def check(self, dest: Path) -> bool:
        """Raise PolicyError unless `dest` is below a root, both as written and with its parents' links resolved now.

        Returns whether its directory exists.
        """
        text = str(dest)
        if not text.startswith(self._written):
            raise PolicyError(f"{dest} is not below any of allowed_roots ({self._listed})")
        directory, _, name = text.rpartition("/")
        resolved, exists = self._resolve(directory)
        real = f"{resolved}/{name}"
        if not real.startswith(self._real):
            raise PolicyError(f"{dest} leads through a symbolic link to {real}, outside allowed_roots ({self._listed})")
        return exists

    def _resolve(self, directory: str) -> tuple[str, bool]:
        """The real path of `directory`, and whether it exists. Cached while the name leads to the same inode."""
        try:
            status = os.stat(directory)  # noqa: PTH116  for each of thousands of files
        except OSError:
            return os.path.realpath(directory), False
        device, inode, real = self._resolved.get(directory, (0, 0, ""))
        if (device, inode) != (status.st_dev, status.st_ino):
            real = _real_path(directory)
            self._resolved[directory] = status.st_dev, status.st_ino, real
        return real, stat.S_ISDIR(status.st_mode)


def _real_path(directory: str) -> str:
    """The real path of `directory`; parts that do not exist yet stay as written.

    One readlink of /proc/self/fd (proc_pid_fd(5)) instead of os.path.realpath's system call for each component.
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
