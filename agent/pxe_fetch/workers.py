"""Threads that work off a queue: as many as may be, but no more than make it quicker."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

from pxe_fetch.errors import StoppedError

STEP = 0.005  # seconds that lie at least between the starts of two workers
QUICK = 5  # pieces of work in a STEP, so many that it is the interpreter they wait for: it serves one thread at a time
STOPPING = 2.0  # seconds for the workers to let go after SIGTERM; those that are slower end with the process

T = TypeVar("T")


class Workers(Generic[T]):
    """Up to `most` threads, each taking from `waiting` what `work` then does.

    One begins. Another is started at each step in which those that there are have not begun QUICK pieces of work, so
    that they wait for a network or a disk. What comes as quickly as the interpreter can follow comes no quicker for
    being handed around between threads: 1,000 files of 64 KiB took four of them half as long again as one.
    """

    def __init__(
        self,
        waiting: SimpleQueue[T],
        work: Callable[[T], None],
        *,
        most: int,
        stop: Event,
        spare: Callable[[], None],
    ) -> None:
        """`spare` is called once for each of the `most` that has nothing to do any more, or never will have."""
        self._waiting = waiting
        self._work = work
        self._stop = stop
        self._spare = spare
        self._free = most  # not started
        self._working = 0
        # Not Thread.join: a signal's exception inside it has it take a thread that runs for one that has ended
        # (CPython 3.11, Thread._wait_for_tstate_lock).
        self._ended: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Return when nothing is left, or `stop` is set and they have let go.

        The threads do not outlive the process, so a signal's StoppedError in this one ends the waiting.
        """
        try:
            left = self._waiting.qsize()
            while True:
                before, left = left, self._waiting.qsize()
                if not left or self._stop.is_set():
                    self._give_up_free()
                elif self._free and (not self._working or before - left < QUICK):
                    self._start()
                if not self._working:
                    return
                with suppress(Empty):
                    self._ended.get(timeout=STEP if self._free else None)
                    self._working -= 1
        except StoppedError:
            until = time.monotonic() + STOPPING
            with suppress(Empty):
                for _ in range(self._working):
                    self._ended.get(timeout=max(until - time.monotonic(), 0))
            raise

    def _start(self) -> None:
        """One more. Raises RuntimeError where the unit's TasksMax= does not allow a single one."""
        thread = Thread(target=self._run_one, name=f"bring-{self._working}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._working:
                raise
            self._give_up_free()
            return
        self._free -= 1
        self._working += 1

    def _give_up_free(self) -> None:
        while self._free:
            self._free -= 1
            self._spare()

    def _run_one(self) -> None:
        try:
            while not self._stop.is_set():
                self._work(self._waiting.get_nowait())
        except (Empty, StoppedError):
            return
        finally:
            self._spare()
            self._ended.put(None)
