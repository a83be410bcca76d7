"""Copy a body into a part, and hash it on the way.

The buffers are page-aligned (anonymous mmap), since copies from the kernel to an odd address are several times slower
on some processors. The reading thread receives and writes; a second thread hashes a long body meanwhile, since hashlib
releases the GIL. Bytes that have arrived are written and hashed whatever happens to the body afterwards.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import field
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from queue import SimpleQueue
from threading import Thread

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import SlowError
from pxe_fetch.transport import Body

BUFFER = 512 * 1024  # bytes of one buffer: at most as many are lost if the agent is killed
WRITE_EVERY = 0.5  # seconds: slow bytes do not wait for a full buffer
LONG_BODY = 4 * 1024 * 1024  # bytes after which a second thread is worth its start
_BUFFERS = 6  # one being filled, one being hashed; the others wait while the node has other things to do
_SPARES = 8  # buffers kept for later bodies: faulting in a new one costs more than copying a small file


def copy_body(
    body: Body,
    *,
    wanted: Callable[[], int],
    check: Callable[[int], float],
    write: Callable[[memoryview], None],
    update: Callable[[memoryview], None],
    may_thread: Callable[[], bool] = lambda: True,
) -> None:
    """Copy `body` until it ends, or until `wanted()`, the most bytes to take next, is 0.

    `check` counts bytes as they come, and returns the time on the clock. `write` gets them, BUFFER at a time at most,
    and `update` hashes them afterwards; of a long body in a second thread, if `may_thread()`. Raises what these and the
    body raise; all bytes that had arrived are then written and hashed, unless `write` refused them.
    """
    pipeline = HashPipeline(update)
    received, now = 0, check(0)
    try:
        while most := wanted():
            buffer, filled, until = pipeline.buffer(), 0, now + WRITE_EVERY
            try:
                while filled < most and now < until:
                    count = body.readinto(buffer[filled:most])
                    if not count:
                        return
                    filled += count
                    now = check(count)
            finally:
                if filled:
                    received += filled
                    write(buffer[:filled])  # first: once a chunk is known to be wrong, another stream may write it
                    pipeline.hash(buffer, filled, in_thread=received > LONG_BODY and may_thread())
    finally:
        pipeline.close()


@mutable_record
class MinimumRate:
    """Checks that bytes arrive fast enough: at one byte a second, no read ever times out."""

    timeouts: Timeouts
    deadline: Deadline
    may_leave: Callable[[], bool]  # whether there is anywhere else to go
    on_fast: Callable[[], None] = lambda: None  # called once a quarter of the window has had enough
    sharers: Callable[[], int] = lambda: 1  # how many streams share the minimum
    _since: float = 0.0  # start of the current quarter of the window
    _bytes: int = 0  # since then
    _quarters: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=3))  # bytes and seconds of each

    def __post_init__(self) -> None:
        self._since = self.deadline.clock.now()

    def check(self, count: int) -> float:
        """Count `count` received bytes; return the time.

        Raises SlowError if the last three quarters of a window had too few, or its first half: so that a line which
        collapses is left within a window, though the rate is measured only once a quarter.
        """
        deadline, timeouts = self.deadline, self.timeouts
        deadline.check()
        now = deadline.clock.now()
        deadline.progressed(now)
        self._bytes += count
        quarter = timeouts.min_rate_window / 4
        if self._bytes >= timeouts.min_rate * quarter:  # at once: many a stream ends sooner
            self.on_fast()
        if now - self._since >= quarter:
            self._quarters.append((self._bytes, now - self._since))
            self._since, self._bytes = now, 0
            rate = sum(bytes_ for bytes_, _ in self._quarters) / sum(seconds for _, seconds in self._quarters)
            is_slow = len(self._quarters) > 1 and rate * self.sharers() < timeouts.min_rate
            if is_slow and self.may_leave():
                least = f"{timeouts.min_rate / 1024:g} KiB/s"
                raise SlowError(f"too slow: {rate / 1024:.1f} KiB/s, less than {least}")
        return now


class HashPipeline:
    """Buffers on their way to the digest: hashed in the caller's thread, or in a second one for a long body."""

    def __init__(self, update: Callable[[memoryview], None]) -> None:
        self._update = update
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview, int]] = SimpleQueue()
        self._thread: Thread | None = None
        self._free.put(_new_buffer())

    def buffer(self) -> memoryview:
        """A free buffer; waits for the hashing thread if it has all of them."""
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
            self._update(buffer[:filled])
            self._free.put(buffer)

    def _work(self) -> None:
        while True:
            buffer, filled = self._full.get()
            if not filled:
                return
            self._update(buffer[:filled])
            self._free.put(buffer)

    def close(self) -> None:
        """Wait until everything is hashed."""
        if self._thread:
            self._full.put((memoryview(b""), 0))
            self._thread.join()
        while not self._free.empty():
            _spare.append(self._free.get_nowait())


_spare: deque[memoryview] = deque(maxlen=_SPARES)  # shared by all threads: append and pop are atomic


def _new_buffer() -> memoryview:
    try:
        return _spare.pop()
    except IndexError:
        return memoryview(mmap(-1, BUFFER, flags=MAP_PRIVATE | MAP_ANONYMOUS))
