"""Time: the clock, when a download has to end, and whether the wall clock can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from pxe_fetch.errors import DeadlineError, StoppedError

SYNCHRONISED = Path("/run/systemd/timesync/synchronized")  # systemd-timesyncd.service(8)
_SLICE = 0.5  # seconds of one wait: only between two does the main thread run the handler of a signal for sure


class Clock(Protocol):
    """The node's clock. Tests use one whose waits are over at once."""

    def now(self) -> float:
        """Seconds on a clock that never jumps."""

    def sleep(self, seconds: float, *, stop: Event) -> None:
        """Wait for `seconds`, or until `stop` is set."""

    def synchronised(self) -> bool:
        """Whether the wall clock has been set from the network since this boot."""


class SystemClock:
    """The kernel's."""

    now = staticmethod(time.monotonic)

    def sleep(self, seconds: float, *, stop: Event) -> None:
        until = self.now() + seconds
        while (left := until - self.now()) > 0 and not stop.wait(min(left, _SLICE)):
            continue

    def synchronised(self) -> bool:
        # adjtimex(2) knows about chrony and ntpd too, which leave no such file; but the unit's ProtectClock= forbids
        # it. With those daemons a few more attempts are made before a certificate that has expired is final.
        return SYNCHRONISED.exists()


class StopWhen(Event):
    """Counts as set when `stop` is set, when it is set itself, and while `condition` holds. Only `is_set` knows."""

    def __init__(self, condition: Callable[[], bool], *, stop: Event) -> None:
        super().__init__()
        self._condition = condition
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set() or self._condition()


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """How long a download may take: until `stop` is set, or until `at` on `clock.now()`."""

    clock: Clock
    stop: Event
    at: float
    message: str = "the time for it is over"  # of the error that says so

    def check(self) -> None:
        """Raises StoppedError or DeadlineError when it is over."""
        if self.stop.is_set():
            raise StoppedError("told to stop")
        if self.clock.now() >= self.at:
            raise DeadlineError(self.message)

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.at - self.clock.now()
