"""Small files that a user names: a configuration, a key, a token. They are read at once, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_LARGEST = 16 << 20  # bytes; no file of this kind has nearly as many


def read_input(path: Path, *, limit: int = _LARGEST) -> bytes:
    """At most the first `limit` bytes of the file `path`, which is a regular file, or a pipe that the shell has made.

    Raises OSError for any other: opening a named pipe waits for somebody who writes (fifo(7)), a device may have no
    end, and opening one may do something.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISREG(mode) or _is_unnamed_pipe(path, mode)):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        return file.read(limit)


def _is_unnamed_pipe(path: Path, mode: int) -> bool:
    """Whether it is a pipe that this process was started with, as in `<(command)` and /dev/stdin (proc(5), `fd`)."""
    return stat.S_ISFIFO(mode) and path.resolve().name.startswith("pipe:[")
