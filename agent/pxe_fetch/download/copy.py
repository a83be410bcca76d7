"""Copy a body into a part, and hash it on the way.

The buffers are page-aligned (anonymous mmap), since copies from the kernel to an odd address are several times slower
on some processors. The reading thread receives and writes; a second thread hashes a long body meanwhile, since hashlib
releases the GIL. Bytes that have arrived are written and hashed whatever happens to the body afterwards.
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
from pxe_fetch.download.partfile import SequentialPart
from pxe_fetch.errors import IntegrityError, NetworkError
from pxe_fetch.transport import Body

BUFFER = 512 * 1024  # bytes of one buffer: at most as many are lost if the agent is killed
WRITE_EVERY = 0.5  # seconds: slow bytes do not wait for a full buffer
PROGRESS_EVERY = 0.5  # seconds between two reports of progress
LONG_BODY = 4 * 1024 * 1024  # bytes after which a second thread is worth its start
_BUFFERS = 3  # one being filled, one being hashed, one waiting
_SPARES = 8  # buffers kept for later bodies: faulting in a new one costs more than copying a small file


def copy_body(
    body: Body,
    part: SequentialPart,
    *,
    size: int | None,
    rate: MinimumRate,
    before_write: Callable[[int], None],
    on_progress: Callable[[int], None],
) -> None:
    """Append `body` to `part` until it ends.

    `before_write` gets the length that the part will have; `on_progress` the length that it has, regularly and at the
    end. Raises IntegrityError if more than `size` bytes arrive, and whatever the callbacks, the body, the
    part and `rate` raise. In every case the part has all bytes that had arrived, and they are hashed.
    """
    pipeline = HashPipeline(part.digester.update)
    received = 0  # from this body
    now = reported = rate.since
    try:
        while True:
            buffer = pipeline.buffer()
            filled = 0
            most = BUFFER if size is None else min(BUFFER, size - part.length + 1)  # one more reveals a longer body
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
    """Checks that bytes arrive fast enough: at one byte a second, no read ever times out."""

    def __init__(
        self,
        timeouts: Timeouts,
        *,
        deadline: Deadline,
        may_leave: Callable[[], bool],
        sharers: Callable[[], int] = lambda: 1,
    ) -> None:
        """`may_leave` says whether there is anywhere else to go; `sharers` how many streams share the minimum."""
        self._timeouts = timeouts
        self._deadline = deadline
        self._may_leave = may_leave
        self._sharers = sharers
        self.since = deadline.clock.now()  # start of the window
        self._bytes = 0

    def check(self, count: int) -> float:
        """Count `count` received bytes; return the time. Raises NetworkError if a window had too few."""
        deadline, timeouts = self._deadline, self._timeouts
        deadline.check()
        now = deadline.clock.now()
        deadline.progressed(now)
        self._bytes += count
        window = now - self.since
        if window >= timeouts.min_rate_window:
            if self._bytes * self._sharers() < timeouts.min_rate * window and self._may_leave():
                rate = self._bytes / window / 1024
                raise NetworkError(f"too slow: {rate:.1f} KiB/s, less than {timeouts.min_rate / 1024:g} KiB/s")
            self.since, self._bytes = now, 0
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
