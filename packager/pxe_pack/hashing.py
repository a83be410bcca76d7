"""Copies that are hashed on the way, and hashes beside other work: hashlib lets go of the interpreter's lock."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Self

BLOCK = 1 << 20  # bytes; of reads, and of what is handed to the hash at once
_COPY_AT_ONCE = 256 << 20  # bytes; of one copy_file_range call, so that Ctrl-C is heard

_SLOTS = 4  # blocks that are between being read and being hashed

Advance = Callable[[int], None]
Consumer = Callable[[bytes | memoryview], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeAndDigest:
    """How many bytes there were, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Bytes that stand together in a file."""

    offset: int
    size: int


class Stopped(Exception):  # noqa: N818  no error: the caller asked for it
    """A hash that was given up because its result is no longer wanted."""


@contextmanager
def background_hasher() -> Iterator[Hasher]:
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

    def file(self, path: Path, *, advance: Advance | None = None) -> Future[SizeAndDigest]:
        """The tally of the file as it is now, to come."""
        return self.pool.submit(self._hash, path, advance)

    def _hash(self, path: Path, advance: Advance | None) -> SizeAndDigest:
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
        return SizeAndDigest(size=size, sha256=digest.hexdigest())


def hash_file(path: Path) -> SizeAndDigest:
    """The tally of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return SizeAndDigest(size=file.tell(), sha256=digest.hexdigest())


def copy_hashed(pieces: Iterable[bytes], target: Path, *, consumers: Sequence[Consumer] = ()) -> SizeAndDigest:
    """Write `pieces` to the new file `target`, and hash them in the same pass, in which `consumers` get them too."""
    digest = hashlib.sha256()
    size = 0
    with target.open("xb", buffering=0) as file:
        for piece in pieces:
            digest.update(piece)
            for consumer in consumers:
                consumer(piece)
            size += len(piece)
            write_all(file, piece)
    return SizeAndDigest(size=size, sha256=digest.hexdigest())


def copy_with_trailer(
    pieces: Iterable[bytes], target: Path, *, trailer: Callable[[SizeAndDigest], bytes]
) -> tuple[SizeAndDigest, SizeAndDigest]:
    """Write `pieces` to the new file `target`, and what `behind` makes of their tally; gives both tallies."""
    digest = hashlib.sha256()
    size = 0
    with target.open("xb", buffering=0) as file:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            write_all(file, piece)
        before = SizeAndDigest(size=size, sha256=digest.hexdigest())
        added = trailer(before)
        digest.update(added)
        write_all(file, added)
    return before, SizeAndDigest(size=size + len(added), sha256=digest.hexdigest())


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all of `data` where `file` stands."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def span_pieces(file: BinaryIO, *, offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes of `file` from `offset`, block by block."""
    end = offset + size
    while offset < end:
        piece = os.pread(file.fileno(), min(BLOCK, end - offset), offset)
        if not piece:
            raise _shortened(file)
        offset += len(piece)
        yield piece


def copy_span(source: BinaryIO, target: Path, *, offset: int, size: int, advance: Advance | None = None) -> None:
    """Copy bytes of `source` to the new file `target` inside the kernel; shares them where the file system can."""
    with target.open("xb", buffering=0) as file:
        _copy_in_steps(source, file, offset=offset, size=size, advance=advance)


def copy_into(source: BinaryIO, target: Path, *, at: int, size: int, advance: Advance | None = None) -> None:
    """Copy the first `size` bytes of `source` to `at` in the file `target`, as `copy_span` does."""
    with target.open("r+b", buffering=0) as file:
        file.seek(at)
        _copy_in_steps(source, file, offset=0, size=size, advance=advance)


def _copy_in_steps(source: BinaryIO, target: BinaryIO, *, offset: int, size: int, advance: Advance | None) -> None:
    for done in range(0, size, _COPY_AT_ONCE):
        count = min(_COPY_AT_ONCE, size - done)
        _copy_in_kernel(source, target, offset=offset + done, size=count)
        if advance:
            advance(count)


def copy_around(source: BinaryIO, target: Path, *, hole: Span) -> None:
    """Copy `source` to the new file `target`, but for `hole`, which is left as a hole in the file."""
    size = os.fstat(source.fileno()).st_size
    after = hole.offset + hole.size
    with target.open("xb", buffering=0) as file:
        os.truncate(file.fileno(), size)
        _copy_in_kernel(source, file, offset=0, size=hole.offset)
        file.seek(after)
        _copy_in_kernel(source, file, offset=after, size=size - after)


def copy_whole(
    source: BinaryIO, target: Path, *, advance: Advance, consumers: Sequence[Consumer] = ()
) -> SizeAndDigest:
    """Copy `source` to the new file `target`, and give its tally.

    The bytes are read once for the hash and for `consumers`, each in a thread of its own. Meanwhile the kernel copies
    them, or shares them if the file system can.
    """
    whole = Span(offset=0, size=os.fstat(source.fileno()).st_size)
    with target.open("xb", buffering=0) as file:
        with _HashThread() as hashed, ExitStack() as stack:
            threads = [hashed, *(stack.enter_context(_ConsumerThread(consumer)) for consumer in consumers)]
            _copy_and_feed(source, file, whole, at=0, threads=threads, advance=advance)
        return hashed.result()


def splice(
    source: BinaryIO, target: Path, *, span: Span, at: int, head: bytes = b"", advance: Advance
) -> tuple[SizeAndDigest, SizeAndDigest]:
    """Copy `span` of `source` to `at` in the file `target`, and give the tallies of all of `source` and of `target`.

    `head` takes the place of the span's first bytes. Its bytes are read once for both hashes, each of which has a
    thread of its own, and copied meanwhile. What else is in `target` has to be there.
    """
    end = span.offset + span.size
    with target.open("r+b", buffering=0) as file:
        with _HashThread() as incoming, _HashThread() as outgoing:
            incoming.take(span_pieces(source, offset=0, size=span.offset))
            outgoing.take(span_pieces(file, offset=0, size=at))
            first = b"".join(span_pieces(source, offset=span.offset, size=min(BLOCK, span.size)))
            changed = head + first[len(head) :]
            incoming.take([first])
            outgoing.take([changed])
            file.seek(at)
            write_all(file, changed)
            rest = Span(offset=span.offset + len(first), size=span.size - len(first))
            _copy_and_feed(source, file, rest, at=at + len(first), threads=[incoming, outgoing], advance=advance)
            incoming.take(span_pieces(source, offset=end, size=os.fstat(source.fileno()).st_size - end))
            after = at + span.size
            outgoing.take(span_pieces(file, offset=after, size=os.fstat(file.fileno()).st_size - after))
        return incoming.result(), outgoing.result()


def _copy_and_feed(
    source: BinaryIO, target: BinaryIO, span: Span, *, at: int, threads: Sequence[_ConsumerThread], advance: Advance
) -> None:
    """Copy `span` to `at` in `target`, read once for all `threads`."""
    # the kernel copies into pages of their own several times as fast as into unaligned buffers
    slots = memoryview(mmap.mmap(-1, _SLOTS * BLOCK))
    end = span.offset + span.size
    target.seek(at)
    for number, offset in enumerate(range(span.offset, end, BLOCK)):
        for thread in threads:
            thread.reserve()  # so all are done with what was in this slot
        slot = number % _SLOTS * BLOCK
        block = slots[slot : slot + min(BLOCK, end - offset)]
        _read_all(source, block, offset)
        for thread in threads:
            thread.put(block)
        _copy_in_kernel(source, target, offset=offset, size=len(block))
        advance(len(block))


def _read_all(source: BinaryIO, block: memoryview, offset: int) -> None:
    done = 0
    while done < len(block):
        count = os.preadv(source.fileno(), [block[done:]], offset + done)
        if count == 0:
            raise _shortened(source)
        done += count


def _copy_in_kernel(source: BinaryIO, target: BinaryIO, *, offset: int, size: int) -> None:
    """Copy from `offset` to where `target` stands, without the bytes coming into this process."""
    end = offset + size
    while offset < end:
        count = _copy_some(source, target, offset=offset, size=end - offset)
        if count == 0:
            raise _shortened(source)
        offset += count


def _copy_some(source: BinaryIO, target: BinaryIO, *, offset: int, size: int) -> int:
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), size, offset_src=offset)
    except OSError as error:
        # between file systems of different kinds, or of kinds that cannot: copy_file_range(2)
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(target.fileno(), source.fileno(), offset, size)


def _shortened(source: BinaryIO) -> OSError:
    return OSError(errno.EIO, f"{source.name} became shorter while it was read")


class _ConsumerThread:
    """Hands on in a thread what it is given, in order. Not more than `_SLOTS` pieces wait at a time."""

    def __init__(self, consume: Consumer) -> None:
        self._consume = consume
        self._free_slots = threading.Semaphore(_SLOTS)
        self._pieces: SimpleQueue[bytes | memoryview | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hash")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pieces.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._consume(piece)
            del piece  # a view keeps its buffer open
            self._free_slots.release()

    def reserve(self) -> None:
        """Wait until there is room for one more piece."""
        self._free_slots.acquire()

    def put(self, piece: bytes | memoryview) -> None:
        """Hand on a piece for which room was reserved. Its bytes must stay as they are until the room is given back."""
        self._pieces.put(piece)

    def take(self, pieces: Iterable[bytes]) -> None:
        """Hand on all of `pieces`."""
        for piece in pieces:
            self.reserve()
            self.put(piece)


class _HashThread(_ConsumerThread):
    """Hashes in a thread what it is given."""

    def __init__(self) -> None:
        super().__init__(self._update)
        self._digest = hashlib.sha256()
        self._size = 0

    def _update(self, piece: bytes | memoryview) -> None:
        self._digest.update(piece)
        self._size += len(piece)

    def result(self) -> SizeAndDigest:
        """What it was given; only behind its block."""
        return SizeAndDigest(size=self._size, sha256=self._digest.hexdigest())
