"""Threads that work off a queue: as many as may be, but no more than make it quicker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, Protocol, TypeAlias, TypeVar

from pxe_fetch.errors import StoppedError

STEP = 0.02  # seconds between two looks at how quick they are
QUICK = 0.001  # seconds for a piece of work; where it takes less, it is the interpreter that they wait for
SURE = 8  # quick pieces of work in a row, after which they are taken to be quick
STOPPING = 2.0  # seconds for the workers to let go after SIGTERM; those that are slower end with the process

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Following: TypeAlias = Callable[[], T | None]


class Waiting(Protocol[T_co]):
    """What is still to be begun: a queue.SimpleQueue, or the like."""

    def get_nowait(self) -> T_co:
        """The next piece. Raises queue.Empty."""

    def qsize(self) -> int:
        """How many there are, as far as can be told while others take some."""


class Workers(Generic[T]):
    """Up to `most` threads, each taking from `waiting` what `work` then does.

    One begins. At each step another is started where pieces of work take their time, since then they wait for a network
    or a disk; where they are quick, one leaves. The interpreter serves one thread at a time, and what comes as quickly
    as it can follow comes later for being handed around: 1,000 files of 64 KiB took four threads half as long again as
    one.
    """

    def __init__(
        self,
        waiting: Waiting[T],
        work: Callable[[T, Following[T]], None],
        *,
        most: int,
        stop: Event,
        spare: Callable[[], None],
    ) -> None:
        """`work(piece, following)` does one piece.

        `following()` is what the same worker does next: it is no other's from then on. None where that is not known,
        or the last piece was not a quick one, so that others may be sooner. `spare` is called for each of the `most` as
        soon as there is nothing left that it could begin.
        """
        self._waiting = waiting
        self._work = work
        self._most = most
        self._stop = stop
        self._spare = spare
        self._spared = 0
        self._working = 0
        self._quick_in_a_row = 0  # pieces
        self._wanted = 0  # workers with this index, and above, leave
        # Not Thread.join: a signal's exception inside it has it take a thread that runs for one that has ended
        # (CPython 3.11, Thread._wait_for_tstate_lock).
        self._ended: SimpleQueue[None] = SimpleQueue()

    def run(self, *, pause_at: float = math.inf) -> bool:
        """Return when nothing is left, or `stop` is set and they have let go: False.

        True as soon as so many as `pause_at` are left of what is quick; nothing is under way then.

        The threads do not outlive the process, so a signal's StoppedError in this one ends the waiting. Raises
        RuntimeError where not a single thread can be started.
        """
        try:
            return self._conduct(pause_at)
        except StoppedError:
            until = time.monotonic() + STOPPING
            with suppress(Empty):
                for _ in range(self._working):
                    self._ended.get(timeout=max(until - time.monotonic(), 0))
            raise

    def _conduct(self, pause_at: float) -> bool:
        looked, before = time.monotonic(), self._waiting.qsize()
        while True:
            left, now = self._waiting.qsize(), time.monotonic()
            if self._stop.is_set():
                left = 0
            self._spare_all_but(self._working + left)
            if not left:
                if not self._working:
                    return False
                self._ended.get()
                self._working -= 1
                continue
            if left >= pause_at and self._quick_in_a_row >= SURE:
                if self._all_left():
                    return True
                pause_at = math.inf  # one of them takes its time after all
            if not self._working:
                self._start()
            elif now - looked >= STEP:
                is_quick = (before - left) * QUICK >= now - looked
                looked, before = now, left
                self._adjust(is_quick=is_quick)
            with suppress(Empty):
                self._ended.get(timeout=STEP if left < pause_at else STEP / 4)
                self._working -= 1

    def _adjust(self, *, is_quick: bool) -> None:
        """One more where they wait for something, one less where it is the interpreter that they wait for."""
        if not is_quick and self._working < self._most - self._spared:
            self._start()
        elif is_quick and self._wanted > 1:
            self._wanted -= 1

    def _all_left(self) -> bool:
        """Have all leave after what they are at, and whether they soon did."""
        self._wanted = 0
        until = time.monotonic() + STEP
        with suppress(Empty):
            while self._working:
                self._ended.get(timeout=max(until - time.monotonic(), 0))
                self._working -= 1
        self._wanted = self._working
        return not self._working

    def _start(self) -> None:
        """One more. Raises RuntimeError where the unit's TasksMax= does not allow a single one."""
        index = self._wanted
        thread = Thread(target=self._run_one, args=(index,), name=f"bring-{index}", daemon=True)
        self._wanted += 1
        self._working += 1
        try:
            thread.start()
        except RuntimeError:
            self._wanted -= 1
            self._working -= 1
            if not self._working:
                raise

    def _spare_all_but(self, needed: int) -> None:
        while self._spared < self._most - needed:
            self._spared += 1
            self._spare()

    def _run_one(self, index: int) -> None:
        held: list[T] = []
        is_quick = False

        def following() -> T | None:
            if is_quick and not held and index < self._wanted:
                with suppress(Empty):
                    held.append(self._waiting.get_nowait())
            return held[0] if held else None

        try:
            now = time.monotonic()
            while held or index < self._wanted:
                if self._stop.is_set():
                    return
                self._work(held.pop() if held else self._waiting.get_nowait(), following)
                before, now = now, time.monotonic()
                is_quick = now - before < QUICK
                self._quick_in_a_row = self._quick_in_a_row + 1 if is_quick else 0
        except (Empty, StoppedError):
            return
        finally:
            self._ended.put(None)
