"""Where the bytes of a download are kept until it is complete: a file beside the destination, or memory."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from mmap import mmap
from typing import Protocol

from pxe_fetch.chunkmap import ChunkMap, data_extents
from pxe_fetch.contract.model import Digest
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.verify import Digester
from pxe_fetch.errors import CannotCreateError, DiskError, FetchError, NoRoomError, PolicyError
from pxe_fetch.filesystem import Folder, translate_error

_REREAD = 1024 * 1024  # bytes read at a time
_TRIES = 100
_LOCKED = frozenset({errno.EWOULDBLOCK, errno.EACCES})


class Part(Protocol):
    """The first `length` bytes of an artifact; `digester` has hashed exactly these."""

    length: int
    digester: Digester

    def resumable_size(self) -> int:
        """Bytes left by an earlier run that have not been rehashed yet."""

    def rehash(self, *, deadline: Deadline) -> None:
        """Read and hash these bytes, and start from them.

        Raises DiskError, and what `deadline` raises.
        """

    def write(self, data: memoryview) -> None:
        """Append `data`; the caller hashes it. Raises NoRoomError, DiskError or PolicyError (memory's limit)."""

    def clear(self) -> None:
        """Discard all bytes."""


class PartInUseError(CannotCreateError):
    """Another process is downloading or installing the same destination."""


class PartLock:
    """The part file of one artifact: open, and locked until `close`, also while it is being installed."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Open or create `name` in `folder`. One that somebody else made, or that has a second name, is not adopted.

        Raises PartInUseError, CannotCreateError, DiskError, NoRoomError.
        """
        self.folder = folder
        self.name = name
        self.path = f"{folder.path}/{name}"
        self._stays_open = False
        for _ in range(_TRIES):
            self.fd = self._open()
            if self._is_in_place():
                return
            os.close(self.fd)  # another process has just installed it, or it was not ours
        raise CannotCreateError(f"{self.path} is replaced by another program again and again")

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NOFOLLOW: never through a link
        try:
            try:
                # 0600: only its later owner may be allowed to read it.
                fd = os.open(self.name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.folder.fd)
                self.folder.owners.add(os.fstat(fd).st_uid)
            except FileExistsError:
                fd = os.open(self.name, flags | os.O_CREAT, 0o600, dir_fd=self.folder.fd)
        except OSError as error:
            raise translate_error(error, f"{self.path} cannot be created", where=self.folder.path) from error
        try:
            self._lock(fd)
        except FetchError:
            os.close(fd)
            raise
        return fd

    def _lock(self, fd: int) -> None:
        if not stat.S_ISREG((status := os.fstat(fd)).st_mode):
            raise CannotCreateError(f"{self.path} is in the way: it is not a regular file")
        try:
            if not self.folder.is_ours(status):
                self.folder.remove(self.name)
                return
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKED and self.folder.is_ours(status):
                raise PartInUseError(f"{self.path} is being written by another pxe-fetch") from error
            raise DiskError(f"{self.path} cannot be locked or replaced: {error.strerror}") from error

    def _is_in_place(self) -> bool:
        """Whether its name still is that of the open file."""
        return self.folder.holds(self.name, self.fd)

    def remove(self, *, if_empty: bool = False) -> None:
        """Remove the file, unless it was installed. Failures are ignored."""
        with suppress(OSError):
            if self._is_in_place() and not (if_empty and os.fstat(self.fd).st_size):
                self.folder.remove(self.name)

    def keep_open(self) -> None:
        """Make `close` do nothing: a thread that is still running may write to this descriptor."""
        self._stays_open = True

    def close(self) -> None:
        if not self._stays_open:
            os.close(self.fd)


class PartFile:
    """A file that survives a kill, so that the next run can resume it."""

    def __init__(self, lock: PartLock) -> None:
        """Its content counts once it has been rehashed."""
        self._path = lock.path
        self._folder = lock.folder.path
        self._fd = lock.fd
        self._resumable = os.fstat(lock.fd).st_size

    def resumable_size(self) -> int:
        return self._resumable

    def _write(self, data: memoryview, *, at: int) -> None:
        try:
            while data:
                count = os.pwrite(self._fd, data, at)
                at += count
                data = data[count:]
        except OSError as error:
            cause = translate_error(error, f"there is no room for {self._path}", where=self._folder)
            if isinstance(cause, NoRoomError):
                raise cause from error
            raise DiskError(f"{self._path} cannot be written: {error.strerror}") from error

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise DiskError(f"{self._path} cannot be cut to {size} bytes: {error.strerror}") from error

    def _not_read(self, error: OSError) -> DiskError:
        return DiskError(f"{self._path} cannot be read: {error.strerror}")


class SequentialPart(PartFile):
    """A part file that is written from start to end."""

    def __init__(self, lock: PartLock, digest: Digest | None) -> None:
        super().__init__(lock)
        self.digester = Digester(digest)
        self.length = 0

    def rehash(self, *, deadline: Deadline) -> None:
        view = memoryview(mmap(-1, _REREAD))
        try:
            while count := os.preadv(self._fd, [view], self.length):
                deadline.check()
                self.digester.update(view[:count])
                self.length += count
        except OSError as error:
            raise self._not_read(error) from error
        finally:
            self._resumable = 0

    def write(self, data: memoryview) -> None:
        self._write(data, at=self.length)
        self.length += len(data)

    def clear(self) -> None:
        self.length = self._resumable = 0
        self.digester = Digester(self.digester.expected)
        self._truncate(0)


class ChunkedPart(PartFile):
    """A part file that is written in any order; missing bytes are holes."""

    def __init__(self, lock: PartLock, chunk_map: ChunkMap) -> None:
        super().__init__(lock)
        self.chunk_map = chunk_map
        self.length = chunk_map.size
        self.keep_open = lock.keep_open
        if self._resumable > chunk_map.size:
            self._truncate(chunk_map.size)

    def write(self, data: memoryview, *, at: int) -> None:
        """Write `data` to the offset `at`. Raises NoRoomError or DiskError."""
        self._write(data, at=at)

    def rehash(self, *, on_chunk: Callable[[int, bool], None], check: Callable[[], None]) -> list[tuple[int, int]]:
        """Read every chunk without holes, in several threads, and report each to `on_chunk`.

        Returns the chunks of which only the beginning is present, each with its length, for `read_into`. Raises
        DiskError, and what the two functions raise.
        """
        chunks = self.chunk_map
        whole: list[range] = []
        partial: list[tuple[int, int]] = []
        try:
            status = os.fstat(self._fd)
            for start, end in data_extents(self._fd, size=chunks.size):
                first = chunks.at(start + chunks.chunk - 1)
                last = chunks.number if end == chunks.size else chunks.at(end)
                whole.append(range(first, last))
                # Holes begin at block boundaries; only the end of the file is exact.
                sure = end if end == status.st_size else end - status.st_blksize
                if last >= first and chunks.start(last) < sure:
                    partial.append((last, sure - chunks.start(last)))
            chunks.verify(self._fd, indexes=chain.from_iterable(whole), on_chunk=on_chunk, check=check)
        except OSError as error:
            raise self._not_read(error) from error
        finally:
            self._resumable = 0
        return partial

    def read_into(self, take: Callable[[memoryview], None], *, start: int, end: int) -> None:
        """Pass the bytes from `start` up to `end` to `take`, in order. Raises DiskError."""
        view = memoryview(mmap(-1, _REREAD))
        try:
            while start < end and (count := os.preadv(self._fd, [view[: end - start]], start)):
                take(view[:count])
                start += count
        except OSError as error:
            raise self._not_read(error) from error


class MemoryPart:
    """A part in memory, of at most `limit` bytes."""

    def __init__(self, digest: Digest | None, *, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.digester = Digester(digest)
        self.length = 0

    def resumable_size(self) -> int:
        return 0

    def rehash(self, *, deadline: Deadline) -> None:
        """Nothing to rehash."""

    def write(self, data: memoryview) -> None:
        if self.length + len(data) > self._limit:
            raise PolicyError(f"it is larger than the {self._limit} bytes allowed")
        self._bytes += data
        self.length += len(data)

    def clear(self) -> None:
        self._bytes.clear()
        self.length = 0
        self.digester = Digester(self.digester.expected)

    def value(self) -> bytes:
        """All bytes."""
        return bytes(self._bytes)
