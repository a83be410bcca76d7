"""Copies that are hashed on the way, and hashes beside other work: hashlib lets go of the interpreter's lock."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20  # bytes; of reads, and of what is handed to the hash at once
_COPY_AT_ONCE = 256 << 20  # bytes; of one copy_file_range call, so that Ctrl-C is heard

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How many bytes there were, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Stopped(Exception):  # noqa: N818  no error: the caller asked for it
    """A hash that was given up because its result is no longer wanted."""


@contextmanager
def beside() -> Iterator[Hasher]:
    """A hasher whose work runs beside the block's; when the block fails, it is given up."""
    hasher = Hasher()
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="hash") as pool:
        hasher.pool = pool
        try:
            yield hasher
        except BaseException:
            hasher.stopped = True
            raise


class Hasher:
    """Hashes files in threads."""

    pool: ThreadPoolExecutor
    stopped = False

    def file(self, path: Path, *, advance: Advance | None = None) -> Future[Tally]:
        """The tally of the file as it is now, to come."""
        return self.pool.submit(self._hash, path, advance)

    def _hash(self, path: Path, advance: Advance | None) -> Tally:
        digest = hashlib.sha256()
        size = 0
        # a buffer of its own pages: the kernel copies into those several times as fast as into unaligned ones
        with path.open("rb") as file, mmap.mmap(-1, BLOCK) as buffer, memoryview(buffer) as view:
            while count := os.readv(file.fileno(), [view]):
                if self.stopped:
                    raise Stopped
                digest.update(view[:count])
                size += count
                if advance:
                    advance(count)
        return Tally(size=size, sha256=digest.hexdigest())


def tally(path: Path) -> Tally:
    """The tally of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Tally(size=file.tell(), sha256=digest.hexdigest())


def copy_hashed(pieces: Iterable[bytes], target: Path) -> Tally:
    """Write `pieces` to the new file `target`, and hash them in the same pass."""
    digest = hashlib.sha256()
    size = 0
    with target.open("xb", buffering=0) as file:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            _write_all(file, piece)
    return Tally(size=size, sha256=digest.hexdigest())


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def file_pieces(path: Path) -> Iterator[bytes]:
    """The content of a file, block by block."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(BLOCK):
            yield piece


def span_pieces(file: BinaryIO, *, offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes of `file` from `offset`, block by block."""
    end = offset + size
    while offset < end:
        piece = os.pread(file.fileno(), min(BLOCK, end - offset), offset)
        if not piece:
            raise OSError(errno.EIO, f"{file.name} became shorter while it was read")
        offset += len(piece)
        yield piece


def copy_span(source: BinaryIO, target: Path, *, offset: int, size: int, advance: Advance | None = None) -> None:
    """Copy bytes of `source` to the new file `target` inside the kernel; shares them where the file system can."""
    with target.open("xb", buffering=0) as file:
        done = 0
        while done < size:
            count = _copy_some(source, file, offset=offset + done, size=min(_COPY_AT_ONCE, size - done))
            if count == 0:
                raise OSError(errno.EIO, f"{source.name} became shorter while it was read")
            done += count
            if advance:
                advance(count)


def _copy_some(source: BinaryIO, target: BinaryIO, *, offset: int, size: int) -> int:
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), size, offset_src=offset)
    except OSError as error:
        # between file systems of different kinds, or of kinds that cannot: copy_file_range(2)
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(target.fileno(), source.fileno(), offset, size)
