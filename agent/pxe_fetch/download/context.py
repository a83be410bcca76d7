"""What all downloads of a run share: transports, a listener for events, time, and a budget of streams."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Protocol

from pxe_fetch.contract.model import STALL
from pxe_fetch.deadline import Clock, Deadline, SystemClock
from pxe_fetch.errors import StoppedError
from pxe_fetch.humanize import span
from pxe_fetch.transport import Transports


class Events(Protocol):
    """What a download reports while it runs. Called from the downloads' threads, so from several at once.

    `name` is the artifact's; every `url` and `error` is already redacted (contract.url.redact); bytes count from the
    start of the artifact. An implementation neither blocks nor raises.
    """

    def started(self, name: str, *, url: str, offset: int, total: int | None) -> None:
        """A server has answered, and bytes from `offset` on follow; `total` is the size of the whole, if known."""

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        """After `started`: the first `offset` bytes need not be fetched again."""

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        """The part has `received` bytes of the artifact; called about twice a second, and at the end of a body."""

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        """Attempt number `attempt` (from 1) failed at `url`; after `wait_seconds` the next one goes to `next_url`."""

    def mirror_dropped(self, name: str, *, url: str, reason: str) -> None:
        """`url` is not used again for this artifact: it refused, or its bytes were wrong too often."""

    def chunk_wrong(self, name: str, *, url: str, error: str) -> None:
        """A chunk from `url` is wrong; only it is fetched again, from another mirror if there is one."""

    def chunk_mended(self, name: str, *, url: str, chunk: int) -> None:
        """The chunk number `chunk` (from 0), which had been wrong, was received correctly from `url`."""

    def verifying(self, name: str, *, total: int) -> None:
        """`total` bytes left by an earlier run are being read and hashed."""

    def verified(self, name: str, *, digest: str, total: int) -> None:
        """All `total` bytes have been received and have the digest `algorithm:hex`."""


class StreamBudget:
    """The streams that a run may have besides the one that each artifact always has. Thread-safe."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._lock = Lock()

    @property
    def free(self) -> int:
        """The number that could be taken now."""
        return self._free

    def take(self) -> bool:
        """Take one; False if none is free."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """Add one: returned, or freed by a worker that has no more artifacts."""
        with self._lock:
            self._free += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What all downloads of a run share. Thread-safe."""

    transports: Transports
    events: Events
    stop: Event  # once it is set, every download ends within a second
    clock: Clock = field(default_factory=SystemClock)
    run_deadline: float = math.inf  # on `clock.now()`
    streams: StreamBudget = field(default_factory=lambda: StreamBudget(0))

    def check_stop(self) -> None:
        """Raise StoppedError once `stop` is set."""
        if self.stop.is_set():
            raise StoppedError("told to stop")

    def deadline(self, seconds: float | None) -> Deadline:
        """The deadline of a download: `seconds` (None: STALL) from now, or the run's own if that is earlier."""
        seconds = STALL if seconds is None else seconds
        end = self.clock.now() + seconds
        if self.run_deadline < end:
            return Deadline(
                clock=self.clock, stop=self.stop, at=self.run_deadline, message="the run's deadline is over"
            )
        return Deadline(clock=self.clock, stop=self.stop, at=end, message=f"its deadline of {span(seconds)} is over")
