"""Files that are named by somebody else: regular files alone, since a FIFO or a device may block, or never end."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path


def check(path: str | bytes | Path, *, limit: int) -> None:
    """Raise OSError unless `path` leads to a regular file (else EINVAL) of at most `limit` bytes (else EFBIG).

    It is not opened: opening a device may do something.
    """
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")


def opened(path: str | bytes | Path, *, limit: int = sys.maxsize) -> int:
    """A descriptor for reading the regular file `path`. Raises OSError as `check` does."""
    check(path, limit=limit)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may have been replaced by a FIFO since


def read(path: str | Path, *, limit: int) -> bytes:
    """The content of the regular file `path`. Raises OSError as `check` does."""
    content = bytearray()
    with open(opened(path, limit=limit), "rb") as file:
        # In pieces: for a file in /proc/sys, the kernel allocates and clears as much memory as is asked for.
        while len(content) <= limit and (piece := file.read1()):
            content += piece
    if len(content) > limit:  # those of /proc have a size of 0
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return bytes(content)
