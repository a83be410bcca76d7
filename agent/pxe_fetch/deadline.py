"""The clock and whether it is synchronised, the deadline of a download, and the wait before its next attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from threading import Event

from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.errors import DeadlineError, FetchError, NetworkError, StoppedError

SYNCHRONISED = Path("/run/systemd/timesync/synchronized")  # systemd-timesyncd.service(8)
_SLICE = 0.5  # seconds of one wait: a signal handler is only sure to run between two waits


class Clock:
    """The kernel's clock. Tests use one whose waits end at once."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float, *, stop: Event) -> None:
        """Wait for `seconds`, or until `stop` is set."""
        until = self.now() + seconds
        while (left := until - self.now()) > 0 and not stop.wait(min(left, _SLICE)):
            continue

    def synchronised(self) -> bool:
        """Whether the wall clock has been set from the network since this boot.

        Only timesyncd writes this file. adjtimex(2) would show chrony and ntpd too, but the unit's ProtectClock=
        forbids it; with those daemons, an expired certificate is retried a few times before it is final.
        """
        return SYNCHRONISED.exists()


class StopWhen(Event):
    """Counts as set when `stop` is set, when it is set itself, and while `condition` holds. Only `is_set` knows."""

    def __init__(self, condition: Callable[[], bool], *, stop: Event) -> None:
        super().__init__()
        self._condition = condition
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set() or self._condition()


@mutable_record
class Deadline:
    """The end of a download: when `stop` is set, or at the time `at` of `clock.now()`, or at that of the run."""

    clock: Clock
    stop: Event
    at: float
    message: str = "the time for it is over"  # of the DeadlineError
    stall: float | None = None  # seconds: each byte puts `at` off until so long after it
    latest: float = inf  # on the clock: the run's own

    def progressed(self, now: float) -> None:
        """Count a byte, or its like, that came at `now`."""
        if self.stall is not None:
            self.at = now + self.stall

    def check(self) -> None:
        """Raise StoppedError or DeadlineError if it has passed."""
        if self.stop.is_set():
            raise StoppedError("the run was stopped")
        now = self.clock.now()
        if now >= self.latest:
            raise DeadlineError("the run's deadline is over")
        if now >= self.at:
            raise DeadlineError(self.message)

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return min(self.at, self.latest) - self.clock.now()


def pause(error: FetchError, *, failures: int, policy: RetryPolicy) -> float:
    """Seconds to wait before asking a mirror again after its `failures`-th failure in a row (from 1).

    Full jitter: anything up to base * 2^(failures-1), at most `policy.max`, so that a fleet that failed together does
    not retry together. The server's Retry-After, up to `policy.retry_after_max`, is added.
    """
    asked = error.retry_after if isinstance(error, NetworkError) and error.retry_after else 0.0
    most = min(policy.max, policy.base * 2.0 ** min(failures - 1, 60))
    return min(asked, policy.retry_after_max) + random.uniform(0.0, most)  # noqa: S311  spreads a load, keeps no secret
