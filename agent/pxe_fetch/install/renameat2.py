"""Two names exchanged in one step: renameat2(2) with RENAME_EXCHANGE, for which Python has no name."""

from __future__ import annotations

import os
from pathlib import Path

_AT_FDCWD = -100  # <fcntl.h>: paths are taken as they are
_RENAME_EXCHANGE = 2  # <linux/fs.h>


def exchange(one: Path, other: Path) -> bool:
    """Have `one` be what `other` was and the other way round, with no moment in between; False where that cannot be.

    It cannot be on kernels, C libraries and file systems that do not know it (ext4, xfs, btrfs, tmpfs do, overlayfs for
    what is not of its lower layer), and in a Python without libffi.
    """
    try:
        # What ctypes stands on. ctypes itself costs every start of a frozen program 3 ms, used or not, and makes
        # executable memory when it is imported, which the unit forbids.
        import _ctypes

        # dlopen(3): None is the program itself, with the C library in it.
        rename = _ctypes.dlsym(_ctypes.dlopen(None, 0), "renameat2")  # type: ignore[arg-type]
        arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        failed: int = _ctypes.call_function(rename, arguments)
    except (ImportError, AttributeError, OSError):
        return False
    return failed == 0
