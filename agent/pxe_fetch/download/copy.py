"""Bytes from a body into a part, hashed on the way: the one loop every byte goes through.

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
from typing import Protocol

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.partfile import Part
from pxe_fetch.errors import IntegrityError, NetworkError
from pxe_fetch.transport import Body

BUFFER = 512 * 1024  # bytes of one buffer: at most so many are lost when the agent is killed
WRITTEN_EVERY = 0.5  # seconds: what comes slowly does not wait for a full buffer
_BUFFERS = 3  # one being filled, one being hashed, one waiting
_LONG = 4 * 1024 * 1024  # bytes after which a second thread is worth its start
_SPARES = 8  # buffers kept for those that come next: the pages of a new one cost more than a small file's bytes
_TOLD_EVERY = 0.5  # seconds between two reports of progress


def copy_body(
    body: Body,
    part: Part,
    *,
    size: int | None,
    timeouts: Timeouts,
    deadline: Deadline,
    told: Callable[[int], None],
) -> None:
    """Append `body` to `part` until it ends. `told` is called with the part's length now and then.

    Raises IntegrityError if more than `size` come, NetworkError if they come slower than `timeouts.min_rate`, and what
    the body, the part and `deadline` raise. In every case the part holds, hashed, what had come before.
    """
    pace = MinimumRate(timeouts, deadline=deadline)
    lane = HashPipeline(part.digester)
    received = 0  # from this body
    now = told_at = deadline.clock.now()
    try:
        while True:
            buffer = lane.buffer()
            filled = 0
            most = BUFFER if size is None else min(BUFFER, size - part.length + 1)  # one more shows that it is longer
            until = now + WRITTEN_EVERY
            try:
                while filled < most and now < until:
                    count = body.readinto(buffer[filled:most])
                    if count == 0:
                        return
                    filled += count
                    received += count
                    now = pace.check(count)
                    if now - told_at >= _TOLD_EVERY:
                        told_at = now
                        told(part.length + filled)
            finally:
                if filled:
                    lane.hash(buffer, filled, aside=received > _LONG)
                    part.write(buffer[:filled])
                if size is not None and part.length > size:
                    raise IntegrityError(
                        f"wrong size: expected {size} bytes, and more came", expected=str(size), found=f">{size}"
                    )
    finally:
        lane.close()
        told(part.length)


class MinimumRate:
    """Whether bytes come fast enough: one byte a second never lets a read time out."""

    def __init__(self, timeouts: Timeouts, *, deadline: Deadline, sharers: Callable[[], int] = lambda: 1) -> None:
        """`sharers`: how many streams share what is asked for as a minimum."""
        self._timeouts = timeouts
        self._deadline = deadline
        self._sharers = sharers
        self._since = deadline.clock.now()
        self._bytes = 0

    def check(self, count: int) -> float:
        """`count` more bytes came; the time now. Raises NetworkError when a window had too few of them."""
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


_spare: deque[memoryview] = deque(maxlen=_SPARES)  # of the whole process; append and pop are atomic


def _buffer() -> memoryview:
    try:
        return _spare.pop()
    except IndexError:
        # Private: what mmap gives otherwise is shared with the processes that are forked (crew.py).
        return memoryview(mmap(-1, BUFFER, flags=MAP_PRIVATE | MAP_ANONYMOUS))


class Hashing(Protocol):
    """What a lane leads to."""

    def update(self, data: memoryview) -> None:
        """Take `data` in, which follows what was taken in before."""


class HashPipeline:
    """Buffers on their way to the digest: hashed here and now, or by a second thread once that pays."""

    def __init__(self, digester: Hashing) -> None:
        self._digester = digester
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview, int]] = SimpleQueue()
        self._thread: Thread | None = None
        self._free.put(_buffer())

    def buffer(self) -> memoryview:
        """A free one; waits for the hashing thread when it has them all."""
        return self._free.get()

    def hash(self, buffer: memoryview, filled: int, *, aside: bool) -> None:
        """Take in the first `filled` bytes and set the buffer free, `aside` in the second thread."""
        if aside and self._thread is None and len(os.sched_getaffinity(0)) > 1:
            for _ in range(_BUFFERS - 1):
                self._free.put(_buffer())
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
