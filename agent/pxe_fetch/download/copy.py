"""Bytes from a body into a part, hashed on the way: the one loop that every byte goes through.

A ring of page-aligned buffers (anonymous mmap: a copy from the kernel to an odd address is several times slower on
some processors). The reading thread receives and writes; a long body is hashed by a second thread meanwhile, since
hashlib lets go of the interpreter. What has arrived is written and hashed whatever then happens to the body.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from queue import SimpleQueue
from threading import Thread

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.partfile import Part
from pxe_fetch.download.verify import ChunkDigester, Digester
from pxe_fetch.errors import IntegrityError, NetworkError
from pxe_fetch.transport import Body

BUFFER = 512 * 1024  # bytes of one buffer: at most so many are lost when the agent is killed
WRITE_EVERY = 0.5  # seconds: what comes slowly does not wait for a full buffer
PROGRESS_EVERY = 0.5  # seconds between two reports of progress
LONG_BODY = 4 * 1024 * 1024  # bytes after which a second thread is worth its start
_BUFFERS = 3  # one being filled, one being hashed, one waiting
_SPARES = 8  # buffers kept for those that come next: the pages of a new one cost more than a small file's bytes


def copy_body(
    body: Body,
    part: Part,
    *,
    size: int | None,
    timeouts: Timeouts,
    deadline: Deadline,
    before_write: Callable[[int], None],
    on_progress: Callable[[int], None],
) -> None:
    """Append `body` to `part` until it ends.

    `before_write` gets the length that the part will have, `on_progress` the one that it has, now and then and at the
    end. Raises IntegrityError if more than `size` come, NetworkError if they come slower than `timeouts.min_rate`, and
    what the two, the body, the part and `deadline` raise. In every case the part holds, hashed, what had come before.
    """
    rate = MinimumRate(timeouts, deadline=deadline)
    pipeline = HashPipeline(part.digester)
    received = 0  # from this body
    now = reported = deadline.clock.now()
    try:
        while True:
            buffer = pipeline.buffer()
            filled = 0
            most = BUFFER if size is None else min(BUFFER, size - part.length + 1)  # one more shows that it is longer
            until = now + WRITE_EVERY
            try:
                while filled < most and now < until:
                    count = body.readinto(buffer[filled:most])
                    if count == 0:
                        return
                    filled += count
                    received += count
                    now = rate.check(count)
                    if now - reported >= PROGRESS_EVERY:
                        reported = now
                        on_progress(part.length + filled)
            finally:
                if filled:
                    before_write(part.length + filled)
                    pipeline.hash(buffer, filled, in_thread=received > LONG_BODY)
                    part.write(buffer[:filled])
                if size is not None and part.length > size:
                    raise IntegrityError(
                        f"wrong size: expected {size} bytes, and more came", expected=str(size), found=f">{size}"
                    )
    finally:
        pipeline.close()
        on_progress(part.length)


class MinimumRate:
    """Whether bytes come fast enough: one byte a second never lets a read time out."""

    def __init__(self, timeouts: Timeouts, *, deadline: Deadline, sharers: Callable[[], int] = lambda: 1) -> None:
        """`sharers`: how many streams share the minimum."""
        self._timeouts = timeouts
        self._deadline = deadline
        self._sharers = sharers
        self._since = deadline.clock.now()
        self._bytes = 0

    def check(self, count: int) -> float:
        """`count` more bytes came; returns the time now. Raises NetworkError when a window had too few of them."""
        self._deadline.check()
        now = self._deadline.clock.now()
        self._bytes += count
        window = now - self._since
        if window >= self._timeouts.min_rate_window:
            if self._bytes * self._sharers() < self._timeouts.min_rate * window:
                rate = self._bytes / window / 1024
                raise NetworkError(f"too slow: {rate:.1f} KiB/s, less than {self._timeouts.min_rate / 1024:g} KiB/s")
            self._since, self._bytes = now, 0
        return now


class HashPipeline:
    """Buffers on their way to the digest: hashed by the caller's thread, or by a second one once that pays."""

    def __init__(self, digester: Digester | ChunkDigester) -> None:
        self._digester = digester
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview, int]] = SimpleQueue()
        self._thread: Thread | None = None
        self._free.put(_new_buffer())

    def buffer(self) -> memoryview:
        """A free one; waits for the hashing thread when it has them all."""
        return self._free.get()

    def hash(self, buffer: memoryview, filled: int, *, in_thread: bool) -> None:
        """Hash the first `filled` bytes and free the buffer, from now on `in_thread` if there is a second processor."""
        if in_thread and self._thread is None and len(os.sched_getaffinity(0)) > 1:
            for _ in range(_BUFFERS - 1):
                self._free.put(_new_buffer())
            self._thread = Thread(target=self._work, name="hash", daemon=True)
            self._thread.start()
        if self._thread:
            self._full.put((buffer, filled))
        else:
            self._digester.update(buffer[:filled])
            self._free.put(buffer)

    def _work(self) -> None:
        while True:
            buffer, filled = self._full.get()
            if not filled:
                return
            self._digester.update(buffer[:filled])
            self._free.put(buffer)

    def close(self) -> None:
        """Wait until everything is hashed."""
        if self._thread:
            self._full.put((memoryview(b""), 0))
            self._thread.join()
        while not self._free.empty():
            _spare.append(self._free.get_nowait())


_spare: deque[memoryview] = deque(maxlen=_SPARES)  # of the whole process; append and pop are atomic


def _new_buffer() -> memoryview:
    try:
        return _spare.pop()
    except IndexError:
        return memoryview(mmap(-1, BUFFER, flags=MAP_PRIVATE | MAP_ANONYMOUS))
