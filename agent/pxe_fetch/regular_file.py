"""Files that are named by somebody else: regular files alone, since a FIFO or a device may block, or never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check(path: str | Path, *, limit: int) -> None:
    """Raise OSError unless `path` leads to a regular file of at most `limit` bytes; it is not opened."""
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")


def read(path: str | Path, *, limit: int) -> bytes:
    """The content of the regular file `path`. Raises OSError, also where it has more than `limit` bytes (EFBIG)."""
    check(path, limit=limit)
    # O_NONBLOCK: it may have been replaced by a FIFO since (fifo(7)).
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        content = file.read(limit + 1)
    if len(content) > limit:  # those of /proc have a size of 0
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content
