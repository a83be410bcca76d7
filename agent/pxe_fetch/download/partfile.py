"""Where the bytes of an artifact gather until they are all there: a file beside the destination, or memory."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from itertools import chain
from mmap import mmap
from pathlib import Path
from typing import Protocol

from pxe_fetch.chunkmap import ChunkMap, written
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.verify import Digester
from pxe_fetch.errors import CannotCreateError, DiskError, FetchError, NoRoomError, PolicyError

_REREAD = 1024 * 1024  # bytes read at a time when an earlier run's part is hashed again
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IS_ANOTHERS = frozenset({errno.EWOULDBLOCK, errno.EACCES})


class Part(Protocol):
    """Bytes from the start of an artifact, and their digest. `digester` has taken in exactly `length` of them."""

    length: int
    digester: Digester

    def write(self, data: memoryview) -> None:
        """Append `data`; the caller hashes it. Raises NoRoomError, DiskError or PolicyError (memory's limit)."""

    def clear(self) -> None:
        """Forget everything."""


class PartFile:
    """A file that outlives a kill, so that the next run can resume it. One process at a time may have it."""

    def __init__(self, path: Path) -> None:
        """Open or make `path`; what is in it counts once it was read again. Raises CannotCreateError or DiskError."""
        self._path = path
        try:
            # 0600: it may hold what only its owner-to-be may read. O_NOFOLLOW: never through a link.
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise _cannot(path, error) from error
        try:
            self._left = self._claim()
        except BaseException:
            os.close(self._fd)
            raise

    def _claim(self) -> int:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise CannotCreateError(f"{self._path} is in the way: it is not a regular file")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _IS_ANOTHERS:
                raise CannotCreateError(f"{self._path} is being written by another pxe-fetch") from error
            raise DiskError(f"{self._path} cannot be locked: {error.strerror}") from error
        return status.st_size

    def resumable_size(self) -> int:
        """Bytes that an earlier run left, not yet looked at."""
        return self._left

    def _write(self, data: memoryview, *, at: int) -> None:
        try:
            while data:
                count = os.pwrite(self._fd, data, at)
                at += count
                data = data[count:]
        except OSError as error:
            raise _failed_write(self._path, error) from error

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise DiskError(f"{self._path} cannot be cut to {size} bytes: {error.strerror}") from error

    def _unreadable(self, error: OSError) -> DiskError:
        return DiskError(f"{self._path} cannot be read: {error.strerror}")

    def discard(self) -> None:
        """Remove the file, if it is still ours."""
        try:
            ours, there = os.fstat(self._fd), self._path.lstat()
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                self._path.unlink()
        except OSError:
            return

    def close(self) -> None:
        os.close(self._fd)


class FilePart(PartFile):
    """A part that grows from its beginning."""

    def __init__(self, path: Path, *, digester: Callable[[], Digester]) -> None:
        super().__init__(path)
        self._digester = digester
        self.digester = digester()
        self.length = 0

    def rehash(self, *, deadline: Deadline) -> None:
        """Take what an earlier run left as the beginning, after reading all of it: a prefix is never trusted.

        Raises DiskError, and what `deadline` raises.
        """
        buffer = mmap(-1, _REREAD)
        view = memoryview(buffer)
        try:
            while count := os.preadv(self._fd, [view], self.length):
                deadline.check()
                self.digester.update(view[:count])
                self.length += count
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            self._left = 0

    def write(self, data: memoryview) -> None:
        self._write(data, at=self.length)
        self.length += len(data)

    def clear(self) -> None:
        self.length = self._left = 0
        self.digester = self._digester()
        self._cut(0)


class ChunkedPart(PartFile):
    """A part that fills in any order; what has not come yet is a hole in the file."""

    def __init__(self, path: Path, *, pieces: ChunkMap) -> None:
        super().__init__(path)
        self.pieces = pieces
        self.length = pieces.size
        self._stays_open = False
        if self._left > pieces.size:
            self._cut(pieces.size)

    def keep_open(self) -> None:
        """Have `close` do nothing: a thread that was not waited for may write yet, so the number stays taken."""
        self._stays_open = True

    def close(self) -> None:
        if not self._stays_open:
            super().close()

    def write(self, data: memoryview, *, at: int) -> None:
        """Put `data` to the offset `at`. Raises NoRoomError or DiskError."""
        self._write(data, at=at)

    def rehash(self, *, looked: Callable[[int, bool], None], check: Callable[[], None]) -> list[tuple[int, int]]:
        """Read every chunk that has no hole, and tell each by `looked`, from several threads: nothing is trusted.

        Gives the chunks of which there is a beginning, each with its length, for `read_into`. Raises DiskError, and
        what the two raise.
        """
        whole: list[range] = []
        begun: list[tuple[int, int]] = []
        try:
            for start, end in written(self._fd, size=self.pieces.size):
                first = self.pieces.at(start + self.pieces.chunk - 1)
                last = self.pieces.number if end == self.pieces.size else self.pieces.at(end)
                whole.append(range(first, last))
                # Where the hole begins is known to the block alone; at the end of the file, to the byte.
                sure = end if end == os.fstat(self._fd).st_size else end - os.fstat(self._fd).st_blksize
                if last >= first and self.pieces.start(last) < sure:
                    begun.append((last, sure - self.pieces.start(last)))
            self.pieces.look_through(self._fd, indexes=chain.from_iterable(whole), looked=looked, check=check)
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            self._left = 0
        return begun

    def read_into(self, take: Callable[[memoryview], None], *, start: int, end: int) -> None:
        """Have `take` see the bytes from `start` up to `end`, in order. Raises DiskError."""
        view = memoryview(mmap(-1, _REREAD))
        try:
            while start < end and (count := os.preadv(self._fd, [view[: end - start]], start)):
                take(view[:count])
                start += count
        except OSError as error:
            raise self._unreadable(error) from error


class MemoryPart:
    """Bytes of something small, up to `limit`."""

    def __init__(self, *, limit: int, digester: Callable[[], Digester]) -> None:
        self._limit = limit
        self._digester = digester
        self._bytes = bytearray()
        self.digester = digester()
        self.length = 0

    def write(self, data: memoryview) -> None:
        if self.length + len(data) > self._limit:
            raise PolicyError(f"it is larger than the {self._limit} bytes that are allowed here")
        self._bytes += data
        self.length += len(data)

    def clear(self) -> None:
        self._bytes.clear()
        self.length = 0
        self.digester = self._digester()

    def value(self) -> bytes:
        """All of it."""
        return bytes(self._bytes)


def _cannot(path: Path, error: OSError) -> FetchError:
    if error.errno in _FULL:
        return NoRoomError(f"there is no room to create {path}: {error.strerror}")
    if error.errno == errno.EIO:
        return DiskError(f"{path} cannot be opened: {error.strerror}")
    return CannotCreateError(f"{path} cannot be created: {error.strerror}")


def _failed_write(path: Path, error: OSError) -> FetchError:
    if error.errno in _FULL:
        return NoRoomError(f"there is no room for {path.parent / path.name}: {error.strerror}")
    return DiskError(f"{path} cannot be written: {error.strerror}")
