"""Copies files and hashes them in the same pass, in a thread of its own: hashlib releases the GIL."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Self

BLOCK = 1 << 20  # bytes per read and per hash update
_COPY_AT_ONCE = 256 << 20  # bytes per copy_file_range call: Ctrl-C waits for one call at most

_SLOTS = 4  # blocks read but not yet hashed

Advance = Callable[[int], None]
Consumer = Callable[[bytes | memoryview], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeAndDigest:
    """The number of bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A range of bytes in a file."""

    offset: int
    size: int


def hash_file(path: Path) -> SizeAndDigest:
    """The size and digest of a file. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return SizeAndDigest(size=file.tell(), sha256=digest.hexdigest())


def copy_hashed(pieces: Iterable[bytes], target: Path, *, consumers: Sequence[Consumer] = ()) -> SizeAndDigest:
    """Write `pieces` to the new file `target`, hash them, and pass each to the `consumers`."""
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
    pieces: Iterable[bytes], target: Path, *, trailer: Callable[[SizeAndDigest], Iterable[bytes]]
) -> tuple[SizeAndDigest, SizeAndDigest]:
    """Write `pieces` to the new file `target`, then the bytes that `trailer` returns for their size and digest.

    Returns the size and digest without the trailer, and with it.
    """
    digest = hashlib.sha256()
    size = 0
    with target.open("xb", buffering=0) as file:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            write_all(file, piece)
        before = SizeAndDigest(size=size, sha256=digest.hexdigest())
        for piece in trailer(before):
            digest.update(piece)
            size += len(piece)
            write_all(file, piece)
    return before, SizeAndDigest(size=size, sha256=digest.hexdigest())


def write_all(file: BinaryIO, data: bytes | bytearray) -> None:
    """Write all of `data` at the current position of `file`."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def span_pieces(file: BinaryIO, *, offset: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of `file` from `offset`, in blocks. Raises OSError if the file is shorter."""
    end = offset + size
    while offset < end:
        piece = os.pread(file.fileno(), min(BLOCK, end - offset), offset)
        if not piece:
            raise _shortened(file)
        offset += len(piece)
        yield piece


def copy_span(source: BinaryIO, target: Path, *, offset: int, size: int, advance: Advance | None = None) -> None:
    """Copy a range of `source` to the new file `target` in the kernel, as a reflink if the file system can."""
    with target.open("xb", buffering=0) as file:
        _copy_in_steps(source, file, offset=offset, size=size, advance=advance)


def copy_into(source: BinaryIO, target: Path, *, at: int, size: int, advance: Advance | None = None) -> None:
    """Copy the first `size` bytes of `source` to offset `at` of the file `target`, as `copy_span` does."""
    with target.open("r+b", buffering=0) as file:
        file.seek(at)
        _copy_in_steps(source, file, offset=0, size=size, advance=advance)


def copy_piece(source: BinaryIO, target: BinaryIO, *, span: Span) -> None:
    """Copy `span` of `source` to the current position of `target`, as `copy_span` does."""
    _copy_in_steps(source, target, offset=span.offset, size=span.size, advance=None)


def _copy_in_steps(source: BinaryIO, target: BinaryIO, *, offset: int, size: int, advance: Advance | None) -> None:
    for done in range(0, size, _COPY_AT_ONCE):
        count = min(_COPY_AT_ONCE, size - done)
        _copy_in_kernel(source, target, offset=offset + done, size=count)
        if advance:
            advance(count)


def copy_around(source: BinaryIO, target: Path, *, hole: Span) -> None:
    """Copy `source` to the new file `target`, except for `hole`, which becomes a hole in the file."""
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
    """Copy `source` to the new file `target`, and return its size and digest.

    The bytes are read once for the hash and the `consumers`, each of which has its own thread. The kernel makes the
    copy, as a reflink if the file system can.
    """
    whole = Span(offset=0, size=os.fstat(source.fileno()).st_size)
    with target.open("xb", buffering=0) as file:
        with _HashThread() as hashed, ExitStack() as stack:
            threads = [hashed, *(stack.enter_context(_ConsumerThread(consumer)) for consumer in consumers)]
            _copy_and_feed(source, file, whole, at=0, threads=threads, advance=advance)
        return hashed.result()


def splice(
    source: BinaryIO, target: Path, *, span: Span, at: int, head: bytes = b"", advance: Advance
) -> SizeAndDigest:
    """Copy `span` of `source` to offset `at` of the file `target`, and return size and digest of the whole of `target`.

    `head` replaces the first bytes of the span. The span is read once, and hashed in a thread of its own. The rest of
    `target` must already be written.
    """
    with target.open("r+b", buffering=0) as file:
        with _HashThread() as outgoing:
            outgoing.take(span_pieces(file, offset=0, size=at))
            first = b"".join(span_pieces(source, offset=span.offset, size=min(BLOCK, span.size)))
            changed = head + first[len(head) :]
            outgoing.take([changed])
            file.seek(at)
            write_all(file, changed)
            rest = Span(offset=span.offset + len(first), size=span.size - len(first))
            _copy_and_feed(source, file, rest, at=at + len(first), threads=[outgoing], advance=advance)
            after = at + span.size
            outgoing.take(span_pieces(file, offset=after, size=os.fstat(file.fileno()).st_size - after))
        return outgoing.result()


def _copy_and_feed(
    source: BinaryIO, target: BinaryIO, span: Span, *, at: int, threads: Sequence[_ConsumerThread], advance: Advance
) -> None:
    """Copy `span` to offset `at` of `target`, and pass it to all `threads`; it is read once."""
    # page-aligned: the kernel copies into aligned buffers several times faster
    slots = memoryview(mmap.mmap(-1, _SLOTS * BLOCK))
    end = span.offset + span.size
    target.seek(at)
    for number, offset in enumerate(range(span.offset, end, BLOCK)):
        for thread in threads:
            thread.reserve()  # then no thread uses this slot's old content any more
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
    """Copy from `offset` to the current position of `target`, inside the kernel."""
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
        # different or unsupported file systems: copy_file_range(2)
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(target.fileno(), source.fileno(), offset, size)


def _shortened(source: BinaryIO) -> OSError:
    return OSError(errno.EIO, f"{source.name} was truncated while it was read")


class _ConsumerThread:
    """Passes pieces to `consume` in a thread, in order. At most `_SLOTS` pieces wait."""

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
        """Wait for a free slot."""
        self._free_slots.acquire()

    def put(self, piece: bytes | memoryview) -> None:
        """Queue a piece; call `reserve` first. Do not change its bytes until the slot is free again."""
        self._pieces.put(piece)

    def take(self, pieces: Iterable[bytes]) -> None:
        """Queue all of `pieces`."""
        for piece in pieces:
            self.reserve()
            self.put(piece)


class _HashThread(_ConsumerThread):
    """Hashes pieces in a thread."""

    def __init__(self) -> None:
        super().__init__(self._update)
        self._digest = hashlib.sha256()
        self._size = 0

    def _update(self, piece: bytes | memoryview) -> None:
        self._digest.update(piece)
        self._size += len(piece)

    def result(self) -> SizeAndDigest:
        """The size and digest of all pieces. Call it after the `with` block."""
        return SizeAndDigest(size=self._size, sha256=self._digest.hexdigest())
