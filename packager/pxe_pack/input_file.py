"""Files that a user names, a configuration or a key or a log: no pipe is waited for, and no device is read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from pxe_pack.real_path import real_path

_LARGEST = 16 << 20  # bytes; no file that is read whole has nearly as many


def read_input(path: Path, *, limit: int = _LARGEST) -> bytes:
    """At most the first `limit` bytes of the file `path`, a regular file, or a pipe that the shell has made.

    Raises OSError for any other, as `open_regular` does.
    """
    if _is_unnamed_pipe(path):
        with path.open("rb") as pipe:
            return pipe.read(limit)
    with open_regular(path) as file:
        return file.read(limit)


def open_regular(path: Path) -> BinaryIO:
    """The regular file `path`, opened for reading.

    Raises OSError for any other: opening a named pipe waits for somebody who writes (fifo(7)), a device may have no
    end, and opening one may do something.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    # O_NONBLOCK: it may be a pipe by now
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")


def _is_unnamed_pipe(path: Path) -> bool:
    """Whether it is a pipe that this process was started with, as in `<(command)` and /dev/stdin (proc(5), `fd`)."""
    return stat.S_ISFIFO(path.stat().st_mode) and real_path(path).name.startswith("pipe:[")
