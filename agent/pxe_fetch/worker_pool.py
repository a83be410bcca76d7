"""A fixed number of threads that take their work from one queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from pxe_fetch.errors import StoppedError

_STOP_GRACE = 2.0  # seconds for the threads to return after SIGTERM; slower ones end with the process
# Seconds of one wait. A signal that comes just before a wait for a lock, or to another thread, does not end that wait:
# its handler runs when the main thread runs Python again.
_WAIT = 0.25

T = TypeVar("T")


def run_all(
    items: Iterable[T], work: Callable[[T], None], *, threads: int, stop: Event, on_idle: Callable[[], None]
) -> None:
    """Call `work` for each of `items`, in their order, in up to `threads` threads; return when all have ended.

    Once `stop` is set no further item is begun. `on_idle` is called once for each of the `threads`, as soon as no item
    is left for it. The threads are daemons, so they never outlive the process.

    Raises StoppedError when a signal handler raises it in the calling thread, RuntimeError when not even one thread can
    be started.
    """
    queue: SimpleQueue[T] = SimpleQueue()
    for item in items:
        queue.put(item)
    # Not Thread.join: an exception that a signal handler raises inside it makes it take a running thread for one that
    # has ended (CPython 3.11, Thread._wait_for_tstate_lock).
    ended: SimpleQueue[None] = SimpleQueue()

    def loop() -> None:
        try:
            while not stop.is_set():
                work(queue.get_nowait())
        except (Empty, StoppedError):
            return
        finally:
            on_idle()
            ended.put(None)

    wanted = min(threads, queue.qsize())
    for _ in range(threads - wanted):
        on_idle()
    running = 0
    try:
        running = _start(loop, threads=wanted)
        for _ in range(wanted - running):
            on_idle()
        while running:
            with suppress(Empty):
                ended.get(timeout=_WAIT)
                running -= 1
    except StoppedError:
        until = time.monotonic() + _STOP_GRACE
        with suppress(Empty):
            for _ in range(running):
                ended.get(timeout=max(until - time.monotonic(), 0))
        raise


def _start(loop: Callable[[], None], *, threads: int) -> int:
    """Start `threads` threads; how many of them could be. Raises RuntimeError when it was none."""
    for number in range(threads):
        try:
            Thread(target=loop, name=f"fetch-{number}", daemon=True).start()
        except RuntimeError:  # the unit's TasksMax= is reached; the threads that run do the rest
            if not number:
                raise
            return number
    return threads
