"""Two system calls that Python's standard library has no name for, by way of the C library."""

from __future__ import annotations

import os
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # linux/fs.h


def exchange(one: Path, other: Path) -> None:
    """Swap two names of one file system in one step (renameat2(2)). Raises OSError, also where that is not possible."""
    _call("renameat2", AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def sync_file_system(path: Path) -> None:
    """Write out what is not on disk yet of the file system that the directory `path` lies on (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: int | bytes) -> None:
    import ctypes
    import errno

    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        raise OSError(errno.ENOSYS, f"this C library has no {name}") from None
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
