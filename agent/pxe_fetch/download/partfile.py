"""Where the bytes of a download are kept until it is complete: a file beside the destination; and their digest."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path

from pxe_fetch.chunkmap import ChunkMap, OnChunk, data_extents, pieces
from pxe_fetch.contract.chunks import count
from pxe_fetch.contract.model import Digest
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import (
    CannotCreateError,
    DiskError,
    FetchError,
    IntegrityError,
    NoRoomError,
    PartInUseError,
    PolicyError,
)
from pxe_fetch.filesystem import Folder, translate_error

_TRIES = 100
_LOCKED = frozenset({errno.EWOULDBLOCK, errno.EACCES})


class Digester:
    """A running digest. Without an expected one it is a sha256, for the journal."""

    def __init__(self, expected: Digest | None = None) -> None:
        self.expected = expected
        self._algorithm = expected.algorithm if expected else "sha256"
        self._hash = hashlib.sha512() if self._algorithm == "sha512" else hashlib.sha256()

    def update(self, data: memoryview) -> None:
        """Hash `data`, in the order of the file. hashlib releases the GIL for more than 2 KiB."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """The digest of everything hashed so far."""
        return Digest(algorithm=self._algorithm, hex=self._hash.hexdigest())

    def matches(self) -> bool:
        """Whether it is the expected one; False if none is expected."""
        return self.expected == self.digest()

    def check(self, *, remark: str = "") -> None:
        """Raise IntegrityError if another one is expected; `remark` is added to the message."""
        found = self.digest()
        if self.expected and found != self.expected:
            raise IntegrityError(
                f"wrong {found.algorithm}: expected {self.expected.hex[:16]}…, found {found.hex[:16]}…{noted(remark)}",
                expected=str(self.expected),
                found=str(found),
            )


def check_size(found: int | None, *, expected: int | None, remark: str = "") -> None:
    """Raise IntegrityError if the expected size is known and different; `remark` is added to the message."""
    if expected is not None and found != expected:
        message = f"wrong size: expected {expected} bytes, found {found}{noted(remark)}"
        raise IntegrityError(message, expected=str(expected), found=str(found))


def noted(remark: str) -> str:
    """`remark` as the end of a message."""
    return f" ({remark})" if remark else ""


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
            self.fd, self._status = self._open()
            if self._is_in_place():
                return
            os.close(self.fd)  # another process has just installed it, or it was not ours
        raise CannotCreateError(f"{self.path} is replaced by another program again and again")

    def _clear_the_way(self) -> None:
        """Remove what is not a regular file, if somebody else put it there."""
        with suppress(FileNotFoundError):
            status = os.stat(self.name, dir_fd=self.folder.fd, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                return
            if status.st_uid in self.folder.owners:
                raise CannotCreateError(f"{self.path} is in the way, and is not a regular file: remove it")
            self._replace()

    def _replace(self) -> None:
        try:
            self.folder.remove(self.name)
        except OSError as error:
            raise DiskError(f"{self.path} belongs to another, and cannot be replaced: {error.strerror}") from error

    def _open(self) -> tuple[int, os.stat_result]:
        """The file, open and locked, and its status."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NOFOLLOW: never through a link
        try:
            try:
                # 0600: only its later owner may be allowed to read it.
                fd = os.open(self.name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.folder.fd)
                status = os.fstat(fd)
                self.folder.owners.add(status.st_uid)
            except FileExistsError:
                self._clear_the_way()
                fd = os.open(self.name, flags | os.O_CREAT, 0o600, dir_fd=self.folder.fd)
                status = os.fstat(fd)
        except OSError as error:
            raise translate_error(error, f"{self.path} cannot be created", where=self.folder.path) from error
        try:
            self._lock(fd, status)
        except FetchError:
            os.close(fd)
            raise
        return fd, status

    def _lock(self, fd: int, status: os.stat_result) -> None:
        if not (stat.S_ISREG(status.st_mode) and self.folder.is_ours(status)):
            self._replace()
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKED:
                raise PartInUseError(f"{self.path} is still being written by another run of pxe-fetch") from error
            raise DiskError(f"{self.path} cannot be locked: {error.strerror}") from error

    def _is_in_place(self) -> bool:
        """Whether its name still is that of the open file."""
        return self.folder.holds(self.name, self._status)

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
    """A file that survives a kill, so that the next run can resume it. Its content counts once it is rehashed."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path  # in messages
        self.resumable = os.fstat(fd).st_size  # bytes left by an earlier run that have not been rehashed yet

    def write_at(self, data: memoryview, at: int) -> None:
        """Write `data` to the offset `at`. Raises NoRoomError or DiskError."""
        try:
            while data:
                count = os.pwrite(self._fd, data, at)
                at += count
                data = data[count:]
        except OSError as error:
            cause = translate_error(error, f"there is no room for {self._path}", where=Path(self._path).parent)
            if isinstance(cause, NoRoomError):
                raise cause from error
            raise DiskError(f"{self._path} cannot be written: {error.strerror}") from error

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise DiskError(f"{self._path} cannot be cut to {size} bytes: {error.strerror}") from error

    def read_into(self, take: Callable[[memoryview], None], *, start: int, end: int) -> None:
        """Pass the bytes from `start` up to `end` to `take`, in order. Raises DiskError."""
        try:
            for piece in pieces(self._fd, start=start, end=end):
                take(piece)
        except OSError as error:
            raise self._not_read(error) from error

    def _not_read(self, error: OSError) -> DiskError:
        return DiskError(f"{self._path} cannot be read: {error.strerror}")


class SequentialPart(PartFile):
    """A part file that is written from start to end: the first `length` bytes, of which `digester` has the digest."""

    def __init__(
        self,
        fd: int,
        path: str,
        *,
        digest: Digest | None,
        limit: int | None = None,
        accept: Callable[[bytes], object] = lambda _: None,
    ) -> None:
        """More than `limit` bytes are refused; with one, also what `accept` raises IntegrityError for."""
        super().__init__(fd, path)
        self._limit, self._accept = limit, accept
        self.digester = Digester(digest)
        self.length = 0

    def rehash(self, *, deadline: Deadline) -> None:
        """Read and hash what an earlier run left, and start from it. Raises DiskError, and what `deadline` raises."""

        def take(data: memoryview) -> None:
            deadline.check()
            self.digester.update(data)
            self.length += len(data)

        self.read_into(take, start=0, end=self.resumable)
        self.resumable = 0

    def write(self, data: memoryview) -> None:
        """Append `data`; the caller hashes it. Raises NoRoomError, DiskError, PolicyError (the limit)."""
        if self._limit is not None and self.length + len(data) > self._limit:
            raise PolicyError(f"it is larger than the {self._limit} bytes allowed")
        self.write_at(data, self.length)
        self.length += len(data)

    def clear(self) -> None:
        """Discard all bytes."""
        self.length = self.resumable = 0
        self.digester = Digester(self.digester.expected)
        self._truncate(0)

    def check(self, *, remark: str) -> None:
        """Raise IntegrityError if its bytes, of which none is missing, are not what is expected."""
        self.digester.check(remark=remark)
        if self._limit is not None:
            self._accept(os.pread(self._fd, self._limit, 0))


class ChunkedPart(PartFile):
    """A part file that is written in any order; missing bytes are holes."""

    def __init__(self, lock: PartLock, chunk_map: ChunkMap) -> None:
        super().__init__(lock.fd, lock.path)
        self.chunk_map = chunk_map
        self.length = chunk_map.size
        self.keep_open = lock.keep_open
        if self.resumable > chunk_map.size:
            self._truncate(chunk_map.size)

    def rehash(self, *, on_chunk: OnChunk, check: Callable[[], None]) -> list[tuple[int, int]]:
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
                first, last = count(start, chunk=chunks.chunk), chunks.at(end)
                whole.append(range(first, last))
                # Holes begin at block boundaries; only the end of the file is exact.
                sure = end if end == status.st_size else end - status.st_blksize
                if last >= first and chunks.start(last) < sure:
                    partial.append((last, sure - chunks.start(last)))
            chunks.verify(self._fd, indexes=chain.from_iterable(whole), on_chunk=on_chunk, check=check)
        except OSError as error:
            raise self._not_read(error) from error
        finally:
            self.resumable = 0
        return partial
