"""A file in chunks, each with a digest: their offsets, and which of them a file on disk has; and how one is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from pxe_fetch.contract.chunks import DIGEST, count, listed

_READ = 512 * 1024  # bytes of one piece

OnChunk = Callable[[int, bool], bool]
Check = Callable[[], None]


class ChunkMap(NamedTuple):
    """A file of `size` bytes, in chunks of `chunk` bytes (the last may be shorter), and their digests."""

    size: int
    chunk: int
    digests: bytes  # SHA-256, 32 bytes each, in the order of the file

    @property
    def number(self) -> int:
        """How many chunks there are."""
        return count(self.size, chunk=self.chunk)

    @property
    def identity(self) -> str:
        """A word that identifies exactly these bytes."""
        return f"chunks:{self.size}:{self.chunk}:{hashlib.sha256(listed(self.digests).encode()).hexdigest()}"

    def start(self, index: int) -> int:
        """Offset of the chunk's first byte; for `number`, the size of the file."""
        return min(index * self.chunk, self.size)

    def at(self, offset: int) -> int:
        """The chunk that contains the byte at `offset`; for the size of the file, `number`."""
        return offset // self.chunk if offset < self.size else self.number

    def expected(self, index: int) -> bytes:
        """The chunk's digest."""
        return self.digests[index * DIGEST : (index + 1) * DIGEST]

    def matches(self, descriptor: int, *, check: Check) -> bool:
        """Whether all chunks of an open file are right; reading stops at a wrong one.

        Raises OSError, and what `check` raises.
        """
        return self.verify(descriptor, indexes=range(self.number), on_chunk=lambda _, is_right: is_right, check=check)

    def verify(self, descriptor: int, *, indexes: Iterable[int], on_chunk: OnChunk, check: Check) -> bool:
        """Read the chunks `indexes` of an open file, with a thread a core, until `on_chunk(index, is_right)` is false.

        Returns whether it never was. It and `check()` (several times a second) are called from any of the threads. An
        error of theirs, or an OSError, ends the reading and is raised here.
        """
        waiting: SimpleQueue[int] = SimpleQueue()
        for index in indexes:
            waiting.put(index)
        ends: list[BaseException | None] = []

        def work() -> None:
            try:
                while not ends:
                    index = waiting.get_nowait()
                    if not on_chunk(index, self._has_chunk(descriptor, index, check)):
                        ends.append(None)
            except Empty:
                return
            except BaseException as error:
                ends.append(error)

        others = min(len(os.sched_getaffinity(0)), waiting.qsize()) - 1
        threads = [Thread(target=work, name="rehash", daemon=True) for _ in range(others)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        for error in filter(None, ends):
            raise error
        return not ends

    def _has_chunk(self, descriptor: int, index: int, check: Check) -> bool:
        digest = hashlib.sha256()
        for piece in pieces(descriptor, start=self.start(index), end=self.start(index + 1)):
            check()
            digest.update(piece)
        return digest.digest() == self.expected(index)


def pieces(descriptor: int, *, start: int, end: int) -> Iterator[memoryview]:
    """The bytes of an open file from `start` up to `end` or its own end, each piece valid until the next.

    Raises OSError.
    """
    buffer = memoryview(mmap(-1, _READ))
    while start < end and (got := os.preadv(descriptor, [buffer[: end - start]], start)):
        yield buffer[:got]
        start += got


def data_extents(descriptor: int, *, size: int) -> Iterator[tuple[int, int]]:
    """The extents of data in a sparse file's first `size` bytes: start and end offsets.

    On a file system without holes there is one extent (lseek(2), SEEK_DATA). Raises OSError.
    """
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        if start >= size:
            return
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, at
