"""What all downloads of a run share: transports, a listener for events, time, streams, and what is known of hosts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from threading import Condition, Event, Lock
from typing import Protocol

from pxe_fetch.contract.model import STALL
from pxe_fetch.contract.quantity import span
from pxe_fetch.contract.record import mutable_record, record
from pxe_fetch.contract.url import server_of
from pxe_fetch.deadline import Clock, Deadline
from pxe_fetch.errors import NetworkError, StoppedError
from pxe_fetch.plan import Transfer
from pxe_fetch.transport import Transports

_REMEMBERED = 60.0  # seconds: then a host that was silent, or served few streams, is asked again as any other
_TIMES_SILENT = 10  # a host is taken for silent this many times as long as it took to find out
_PAUSE = 0.1  # seconds after a host refused a stream; it may count one that has just ended for a moment
_AT_ONCE = 1.0  # seconds within which a refused connection comes back
_LOOK = 0.01  # seconds between two looks at the answers to other requests
_OVERLOAD = frozenset({421, 429, 503, 530})  # 421 and 530 are of FTP servers with too many clients


class Events(Protocol):
    """What a download reports while it runs. Called from the downloads' threads, so from several at once.

    `name` is the artifact's; every `url` and `error` is already redacted (contract.url.redact); bytes count from the
    start of the artifact. An implementation neither blocks nor raises.
    """

    def resolved(self, transfer: Transfer, *, reference: str) -> None:
        """What the artifact `transfer` is in a registry is known now: its layer in the manifest `reference`."""

    def lost_chunks(self, transfer: Transfer, *, error: str) -> None:
        """The artifact's list of chunk digests cannot be fetched; the digest of the whole is enough."""

    def started(
        self, name: str, *, url: str, offset: int, total: int | None, final_url: str | None = None, remark: str = ""
    ) -> None:
        """A server has answered, and bytes from `offset` on follow; `total` is the size of the whole, if known.

        `final_url` is where redirects led to, `remark` what is odd about the answer: of one stream for the whole.
        """

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        """After `started`: the first `offset` bytes need not be fetched again."""

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        """The part has `received` bytes of the artifact; called with each buffer that is written."""

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        """Attempt number `attempt` (from 1) failed at `url`; after `wait_seconds` the next one goes to `next_url`."""

    def mirror_dropped(self, name: str, *, url: str, reason: str) -> None:
        """`url` is not used again for this artifact: it refused, or its bytes were wrong too often."""

    def limited(self, *, url: str, streams: int, error: str) -> None:
        """The host of `url` refused one more stream, with `error`: for a while it gets no more than `streams`."""

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
        self.free = free  # that could be taken now
        self._lock = Lock()

    def take(self) -> bool:
        """Take one; False if none is free."""
        with self._lock:
            if self.free <= 0:
                return False
            self.free -= 1
            return True

    def give(self) -> None:
        """Add one: returned, or freed by a worker that has no more artifacts."""
        with self._lock:
            self.free += 1


@mutable_record
class Visit:
    """One request to a host, until its answer is read. The code that sends it records the outcome here."""

    since: float = 0.0  # on the clock
    is_served: bool = False  # the host has answered; only the end shows whether the bytes come too
    is_refused: bool = False
    silence: float = 0.0  # seconds for which the host did nothing


@mutable_record
class Host:
    """What the run has learnt of one host and port. Thread-safe."""

    clock: Clock
    _silent_until: float = 0.0  # on the clock
    limit: int = 1  # streams at once, until `_limited_until`
    _limited_until: float = 0.0
    _full_until: float = 0.0
    _served: float = -math.inf  # on the clock: the end of the last visit that was served
    _visits: set[Visit] = field(default_factory=set)  # adding and discarding is atomic
    _left: Condition = field(default_factory=Condition)

    def is_silent(self) -> bool:
        """Whether it did not answer lately, so that others are to be asked before it."""
        return self._silent_until > 0.0 and self.clock.now() < self._silent_until

    def is_full(self) -> bool:
        """Whether it serves this node no further stream at present."""
        if not self._limited_until or (now := self.clock.now()) >= self._limited_until:
            return False
        return len(self._visits) >= self.limit or now < self._full_until

    @contextmanager
    def visit(self, deadline: Deadline) -> Iterator[Visit]:
        """One request, made within this context, once the host is not full. Raises what `deadline` raises."""
        visit = Visit()
        if self._limited_until:
            with self._left:
                while self.is_full():
                    self._left.wait(_PAUSE)
                    deadline.check()
                    deadline.progressed(self.clock.now())  # another stream has its turn
                self._visits.add(visit)
        self._visits.add(visit)
        visit.since = self.clock.now()
        if self._silent_until:  # one request at a time finds out whether it answers again
            self._silent_until = max(self._silent_until, visit.since + _REMEMBERED)
        try:
            yield visit
        finally:
            self._visits.discard(visit)
            if visit.is_served:
                self._served = self.clock.now()
            silent = min(_REMEMBERED, _TIMES_SILENT * visit.silence)
            self._silent_until = self.clock.now() + silent if silent else 0.0
            if self._limited_until:
                with self._left:
                    self._left.notify()

    def is_limit(self, error: NetworkError, visit: Visit) -> bool:
        """Whether `error`, instead of an answer to `visit`, only means that it serves this node no more streams.

        That is so while it serves another: nginx's limit_conn answers 503, others 429, or refuse the connection. If
        not, a host that did not answer is remembered.
        """
        is_overload = error.status in _OVERLOAD
        visit.is_refused = True
        until = time.monotonic() + _AT_ONCE
        while is_overload and not self._is_serving(visit) and self._is_awaited() and time.monotonic() < until:
            time.sleep(_LOOK)  # the answer to a request that came first may be on its way
        now, others = self.clock.now(), sum(one.is_served for one in list(self._visits))
        is_refused = error.status is None and others and now < visit.since + _AT_ONCE
        if is_refused or (is_overload and self._is_serving(visit)):
            self.limit = max(others, 1)
            self._limited_until, self._full_until = now + _REMEMBERED, now + _PAUSE
            return True
        if error.status is None:
            visit.silence = now - visit.since
        return False

    def _is_serving(self, visit: Visit) -> bool:
        """Whether another stream has been served since `visit` began."""
        # A server that is known to have a limit may count a stream that has just ended for a moment.
        moment = 2 * _PAUSE if self.clock.now() < self._limited_until else 0.0
        return any(one.is_served for one in list(self._visits)) or self._served >= visit.since - moment

    def _is_awaited(self) -> bool:
        """Whether a request has no answer yet."""
        return not all(one.is_served or one.is_refused for one in list(self._visits))


@record
class Context:
    """What all downloads of a run share. Thread-safe."""

    transports: Transports
    events: Events
    stop: Event  # once it is set, every download ends within half a second
    clock: Clock = field(default_factory=Clock)
    run_deadline: float = math.inf  # on `clock.now()`
    streams: StreamBudget = field(default_factory=lambda: StreamBudget(0))
    _hosts: dict[str, Host] = field(default_factory=dict)

    def host(self, url: str) -> Host:
        """The host of `url`: the same for the same scheme, host and port."""
        place = server_of(url)
        return self._hosts.get(place) or self._hosts.setdefault(place, Host(clock=self.clock))

    def check_stop(self) -> None:
        """Raise StoppedError once `stop` is set."""
        if self.stop.is_set():
            raise StoppedError("the run was stopped")

    def deadline(self, seconds: float | None) -> Deadline:
        """The deadline of a download: `seconds` from now, or the run's if that is earlier; None: STALL after a byte."""
        stall, length = (STALL, STALL) if seconds is None else (None, seconds)
        message = f"its deadline of {span(length)} is over" if stall is None else f"no new byte came for {span(length)}"
        at = self.clock.now() + length
        return Deadline(clock=self.clock, stop=self.stop, at=at, message=message, stall=stall, latest=self.run_deadline)
