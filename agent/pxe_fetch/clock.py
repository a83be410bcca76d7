"""Time as a transfer sees it: how late it is, how to wait, when to stop, and whether the wall clock can be trusted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from pxe_fetch.errors import DeadlineError, StoppedError

SYNCHRONISED = Path("/run/systemd/timesync/synchronized")  # systemd-timesyncd.service(8)
_STA_UNSYNC = 0x0040  # adjtimex(2)
_TIMEX_SIZE = 208  # bytes of struct timex on 64-bit Linux
_TIMEX_STATUS = 40  # where its `status` stands


class Clock(Protocol):
    """The node's clock. Tests bring one whose waits are over at once."""

    def now(self) -> float:
        """Seconds on a clock that never jumps."""

    def sleep(self, seconds: float, *, stop: Event) -> None:
        """Wait for `seconds`, or until `stop` is set."""

    def synchronised(self) -> bool:
        """Whether the wall clock has been set from the network since this boot."""


class SystemClock:
    """The kernel's."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, *, stop: Event) -> None:
        stop.wait(seconds)

    def synchronised(self) -> bool:
        return SYNCHRONISED.exists() or _kernel_says_synchronised()


def _kernel_says_synchronised() -> bool:
    """adjtimex(2) without STA_UNSYNC: chrony and ntpd leave no file. False where the call is not to be had."""
    try:
        import ctypes

        timex = ctypes.create_string_buffer(_TIMEX_SIZE)
        if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:  # the unit's sandbox may refuse it
            return False
    except (ImportError, OSError, AttributeError):
        return False
    return not int.from_bytes(timex.raw[_TIMEX_STATUS : _TIMEX_STATUS + 4], "little") & _STA_UNSYNC


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a transfer may go on: until `stop` is set or `deadline` (on `clock.now()`) is over."""

    clock: Clock
    stop: Event
    deadline: float

    def check(self) -> None:
        """Raises StoppedError or DeadlineError when it is over."""
        if self.stop.is_set():
            raise StoppedError("told to stop")
        if self.clock.now() >= self.deadline:
            raise DeadlineError("the time for it is over")

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - self.clock.now()
