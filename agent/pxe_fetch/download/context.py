"""What a run gives to each of its downloads: transports, listeners, time, and streams."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Event, Lock

from pxe_fetch.deadline import Clock, Deadline, SystemClock
from pxe_fetch.download.events import Events
from pxe_fetch.humanize import span
from pxe_fetch.transport import Transports


class StreamBudget:
    """How many streams a run may have beside the one that each artifact has anyway. Safe to use from any thread."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._lock = Lock()

    @property
    def free(self) -> int:
        """How many could be taken now."""
        return self._free

    def take(self) -> bool:
        """Take one; whether there was one."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """Add one: given back, or left by a worker that has no more artifacts."""
        with self._lock:
            self._free += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What all downloads of a run share. Safe to use from several threads."""

    transports: Transports
    events: Events
    stop: Event  # once it is set, every download ends within a second
    clock: Clock = field(default_factory=SystemClock)
    run_deadline: float = math.inf  # on `clock.now()`
    streams: StreamBudget = field(default_factory=lambda: StreamBudget(0))

    def deadline(self, seconds: float) -> Deadline:
        """The deadline of a download that may take `seconds` from now on, or until the run's own deadline."""
        end = self.clock.now() + seconds
        if self.run_deadline < end:
            return Deadline(
                clock=self.clock, stop=self.stop, at=self.run_deadline, message="the run's deadline is over"
            )
        return Deadline(clock=self.clock, stop=self.stop, at=end, message=f"its deadline of {span(seconds)} is over")
