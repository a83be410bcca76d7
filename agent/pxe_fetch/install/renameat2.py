"""Exchange two paths atomically: renameat2(2) with RENAME_EXCHANGE, which Python does not offer."""

from __future__ import annotations

import os
from pathlib import Path

try:
    # The C module under ctypes. Importing ctypes itself creates a callback, which takes executable memory (Python
    # 3.11); the unit forbids that (MemoryDenyWriteExecute=).
    import _ctypes
except ImportError:  # a Python without libffi
    _ctypes = None  # type: ignore[assignment]

_AT_FDCWD = -100  # <fcntl.h>: relative to the working directory
_RENAME_EXCHANGE = 2  # <linux/fs.h>


def exchange(first: Path, second: Path) -> bool:
    """Swap `first` and `second` in one step; False if that is not possible, and nothing has changed.

    It needs support by the C library (glibc 2.28), the kernel and the file system: ext4, xfs, btrfs and tmpfs have it,
    overlayfs does not for directories of its lower layer.
    """
    try:
        # dlopen(3): None stands for the program itself, which has the C library in it.
        renameat2 = _ctypes.dlsym(_ctypes.dlopen(None, 0), "renameat2")  # type: ignore[arg-type]
        arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
        failed: int = _ctypes.call_function(renameat2, arguments)
    except (AttributeError, OSError):
        return False
    return failed == 0
