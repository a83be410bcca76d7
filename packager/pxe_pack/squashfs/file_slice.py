"""A slice of a file with positions of its own: a squashfs file, or a squashfs inside an ISO."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Self

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs.errors import SquashfsError, corrupt


class FileSlice:
    """`size` bytes of an open file, starting at `offset`. Read-only and without a file position: it is thread-safe."""

    def __init__(self, descriptor: int, *, offset: int, size: int) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.size = size

    @classmethod
    def open(cls, path: Path, *, offset: int = 0, size: int | None = None) -> Self:
        """The bytes of `path` from `offset`, all of them or `size`. Raises SquashfsError if it cannot be read."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(path, error) from error
        if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode) and not stat.S_ISBLK(mode):
            os.close(descriptor)
            raise _unreadable(path, OSError(errno.EINVAL, "not a regular file or block device"))
        try:
            return cls.within(descriptor, path, offset=offset, size=size)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def within(cls, descriptor: int, path: Path, *, offset: int, size: int | None = None) -> Self:
        """The bytes from `offset` of the open file `path`, all of them or `size`. Raises SquashfsError if it has less.

        The slice shares the descriptor: do not close it.
        """
        available = os.lseek(descriptor, 0, os.SEEK_END) - offset
        if available < (size or 0):
            raise corrupt(f"{path} is too short for the image of {size} bytes at {offset}")
        return cls(descriptor, offset=offset, size=available if size is None else size)

    def read(self, position: int, size: int) -> bytes:
        """`size` bytes at `position`. Raises SquashfsError if that exceeds the slice."""
        if position < 0 or size < 0 or position + size > self.size:
            raise corrupt(f"{size} bytes at {position} are outside its {self.size} bytes")
        try:
            data = os.pread(self.descriptor, size, self.offset + position)
            while len(data) < size:  # some filesystems return less at a time
                more = os.pread(self.descriptor, size - len(data), self.offset + position + len(data))
                if not more:
                    raise corrupt(f"the file was truncated at {position + len(data)} while it was read")
                data += more
        except OSError as error:
            raise _unreadable("the image", error) from error
        return data

    def close(self) -> None:
        os.close(self.descriptor)


def _unreadable(what: Path | str, error: OSError) -> SquashfsError:
    reason = error.strerror or str(error)
    return SquashfsError(Problem(reference="image-unreadable", message=f"cannot read {what}: {reason}"))
