"""The mirrors of one artifact: the record of each, which one to ask next, and which are dropped."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from functools import lru_cache

from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.url import redact
from pxe_fetch.download.context import Context, Host
from pxe_fetch.errors import (
    FetchError,
    IntegrityError,
    NetworkError,
    NotFoundError,
    PolicyError,
    RangeError,
    SilentError,
)
from pxe_fetch.plan import Source
from pxe_fetch.transport import Body, Request, has_ranges

NOT_FOUND_ATTEMPTS = 4  # of one mirror: it may not be in sync yet, but usually the name is wrong
CORRUPT_ATTEMPTS = 2  # of one mirror: once may be the wire, twice is the file
RANGE_ATTEMPTS = 2  # of one mirror: after one wrong answer it may have ranges, after two it has none
_LIMITED_ATTEMPTS = 5  # in a row that a host refuses a stream when it is this artifact's turn
_SILENT_ATTEMPTS = 3  # failures in a row of all other mirrors, before one whose host is silent is asked
_TOLERATED = 8  # a mirror stays in use while fewer than one in this many of its chunks is wrong
# Seconds of silence after which another mirror is asked, if there is one: TCP has repeated a lost packet five times by
# then (RFC 6298: after 0.2, 0.4, 0.8, 1.6 and 3.2 s on Linux), and most servers begin their answer sooner.
_PATIENCE = 5.0
_IMPATIENT = 2  # failures in a row of one mirror from which on it gets all of `timeouts.read`: it may just be slow


class OvertakenError(NetworkError, is_counted=False):
    """A stream was ended because another mirror would download the rest much faster."""


class LimitedError(NetworkError, is_counted=False):
    """A host refuses this stream, because it serves this node as many as it would."""


@mutable_record
class Mirror:
    """One url and its record in this download."""

    url: str
    position: int  # in the list, from 0
    host: Host
    ranges: bool = field(init=False)  # assumed until it shows that it has none
    validator: str | None = None  # strong ETag of the bytes that it sent
    asked: int = 0
    asked_since_progress: bool = False  # progress of the artifact, whichever mirror made it
    has_delivered: bool = False  # at least one byte
    failures: int = 0  # in a row, without new bytes
    limited: int = 0  # streams in a row that its host refused, serving others
    not_found: int = 0  # 404 answers
    corrupt: int = 0  # answers with wrong bytes that were all its own
    unranged: int = 0  # answers in a row that were not the requested range
    not_before: float = 0.0  # on the clock: do not ask it before then
    error: FetchError | None = None  # the last one
    out: bool = False  # will not be asked again
    # If several streams download one artifact:
    streams: int = 0  # open, or being opened
    has_answered: bool = False  # correctly
    bytes: int = 0  # received by its streams
    seconds: float = 0.0  # total time of its streams
    right: int = 0  # chunks
    wrong: dict[int, tuple[int, str]] = field(
        default_factory=dict
    )  # chunk, all from here -> how often it had what digest
    is_reported: bool = False  # that it is out

    def __post_init__(self) -> None:
        self.ranges = has_ranges(self.url)

    @property
    def accepts_stream(self) -> bool:
        """Whether another stream may be tried: only one until the mirror is known to work, with ranges."""
        if not self.has_answered or self.failures or self.unranged or not self.ranges:
            return self.streams == 0
        return True

    @property
    def is_dead(self) -> bool:
        """Whether it has failed and never delivered anything."""
        return self.failures > 0 and not self.has_delivered

    @property
    def rate(self) -> float:
        """Bytes per second of one stream; 0 while unknown."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def ask(self) -> None:
        """Count one request."""
        self.asked += 1
        self.asked_since_progress = True

    @contextmanager
    def answer(self, request: Request, context: Context) -> Iterator[Body]:
        """The body that answers `request`; closed at the end. Raises as Transport.open, and LimitedError."""
        with self.host.visit(request.deadline) as visit:
            try:
                body = context.transports.of(self.url).open(request)
            except (NotFoundError, RangeError):
                raise
            except NetworkError as error:
                if self.host.is_limit(error, visit) and self.limited < _LIMITED_ATTEMPTS:
                    self.limited += 1
                    raise LimitedError(str(error), status=error.status) from error
                raise
            self.limited = 0
            self.host.answered(visit)
            try:
                yield body
            except SilentError:  # a path that loses long packets lets a header pass
                visit.was_silent(request.timeouts.read)
                raise
            finally:
                body.close()

    def ignored_range(self) -> None:
        """Record an answer that was not the requested range."""
        self.unranged += 1
        self.ranges = self.unranged < RANGE_ATTEMPTS


class Mirrors:
    """All mirrors of a source. One that fails has to wait, so that others are asked first."""

    def __init__(self, source: Source, context: Context) -> None:
        hosts = context.hosts
        self.all: Sequence[Mirror] = [
            Mirror(url=url, position=index, host=hosts.of(url)) for index, url in enumerate(source.urls)
        ]
        self._clock = context.clock
        self._keep_order = source.keep_order
        self._policy = source.retry
        self._timeouts = source.timeouts
        self._errors: list[FetchError] = []

    def next(self, *, prefer_ranges: bool, without: Collection[Mirror] = ()) -> Mirror | None:
        """The mirror to ask next: the one that may be asked soonest, the best of several. None if none is left.

        If ranges are preferred, a mirror that has them is worth a short wait.
        """
        now = self._clock.now()

        def rank(mirror: Mirror) -> tuple[float, ...]:
            handicap = self._policy.base if prefer_ranges and not mirror.ranges else 0.0
            time = max(mirror.not_before, now) + handicap
            return self._is_last_resort(mirror), mirror.host.is_full(), time, *self._quality(mirror)

        left = [one for one in self.all if not one.out and one not in without]
        return min(left, key=rank) if len(left) > 1 else left[0] if left else None

    def ready(self, *, without: Collection[Mirror] = ()) -> Iterator[Mirror]:
        """The mirrors that may get another stream now and are not in `without`, best first.

        A mirror without ranges gets one stream, and only if no other mirror has ranges. In `listed` order a mirror is
        omitted while one before it works.
        """
        now = self._clock.now()
        usable = [one for one in self.all if not one.out and self._is_due_soon(one) and one not in without]
        usable = [one for one in usable if not self._is_last_resort(one)]
        ranged = [one for one in usable if one.ranges]
        for mirror in sorted(ranged, key=self._load):
            if mirror.not_before > now or mirror.host.is_full():
                continue
            if mirror.accepts_stream:
                yield mirror
            if self._keep_order and not mirror.failures and not mirror.corrupt:
                return
        if not ranged and not any(mirror.streams for mirror in self.all):
            yield from (mirror for mirror in usable if mirror.not_before <= now and not mirror.host.is_full())

    def timeouts(self, mirror: Mirror) -> Timeouts:
        """Those of a request to `mirror`: shorter if another mirror may answer sooner."""
        others = [one for one in self.all if one is not mirror and not one.out]
        is_better = any(not one.is_dead and not one.host.is_silent() for one in others)
        return _shorter(self._timeouts) if is_better and mirror.failures < _IMPATIENT else self._timeouts

    def may_leave(self, mirror: Mirror) -> bool:
        """Whether another mirror, which can be asked now, may be faster than `mirror`."""
        others = [one for one in self.all if one is not mirror and not one.out]
        return any(one.not_before <= self._clock.now() and not one.host.is_silent() for one in others)

    def is_waiting(self) -> bool:
        """Whether a mirror may be asked as soon as its host has ended another stream."""
        return any(not one.out and one.host.is_full() for one in self.all)

    def _is_last_resort(self, mirror: Mirror) -> bool:
        """Whether its host is silent, and that of another mirror which may work is not."""
        return mirror.host.is_silent() and any(
            not one.out and one.failures < _SILENT_ATTEMPTS and not one.host.is_silent() for one in self.all
        )

    def _quality(self, mirror: Mirror) -> tuple[bool, int, int]:
        """Lower is better: any bytes, then right bytes, then the order of the list or the fewest requests."""
        return mirror.is_dead, mirror.corrupt, mirror.position if self._keep_order else mirror.asked

    def _load(self, mirror: Mirror) -> tuple[bool, int, int, int]:
        is_dead, corrupt, rest = self._quality(mirror)
        return is_dead, corrupt, 0 if self._keep_order else mirror.streams, rest

    def _is_due_soon(self, mirror: Mirror) -> bool:
        return mirror.not_before <= self._clock.now() + self._policy.base

    def another_may_resume(self, mirror: Mirror) -> bool:
        """Whether another mirror could be asked for a range, now or after a short wait."""
        others = [one for one in self.all if one is not mirror and not one.out]
        return any(one.ranges and self._is_due_soon(one) for one in others)

    def asked(self) -> int:
        """How many of them were asked."""
        return sum(mirror.asked > 0 for mirror in self.all)

    def untried(self) -> bool:
        """Whether a mirror was not asked since the artifact last made progress."""
        return any(not mirror.asked_since_progress and not mirror.out for mirror in self.all)

    def progressed(self) -> None:
        """The artifact has made progress: each mirror gets another chance before the attempts are used up."""
        for mirror in self.all:
            mirror.asked_since_progress = False

    def failed(self, mirror: Mirror, error: FetchError, *, progressed: bool, blamed: bool) -> None:
        """Record that `mirror` failed with `error`; `blamed`: it sent all of the wrong bytes.

        A dropped mirror keeps the error that caused it to be dropped, however its other streams end.
        """
        if mirror.out:
            return
        self._set_error(mirror, error)
        now = self._clock.now()
        mirror.failures = 1 if progressed else mirror.failures + 1
        mirror.not_before = now + pause(error, failures=mirror.failures, policy=self._policy)
        match error:
            case OvertakenError():
                mirror.not_before += self._policy.base  # the faster mirror goes first
            case RangeError() if mirror.ranges:
                mirror.ignored_range()
                mirror.not_before = now  # it works: ask it again, or for the whole
            case IntegrityError():
                mirror.corrupt += blamed
                mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS
            case FetchError(exit_code=Exit.NO_ROOM) if not blamed:  # a size that it claims, for which no byte came
                mirror.corrupt += 1
                mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS
            case NotFoundError():
                mirror.not_found += not mirror.has_delivered  # if it has, it does have the file
                mirror.out = mirror.not_found >= NOT_FOUND_ATTEMPTS
            case _:
                mirror.out = not error.transient

    def wrong_chunk(self, mirror: Mirror, index: int, error: IntegrityError, *, is_first: bool) -> None:
        """Record that chunk `index`, all from `mirror`, was wrong; `is_first`: the first wrong one of its answer.

        The mirror is dropped if too large a share of its chunks is wrong and there is another mirror; otherwise once
        one chunk was wrong in the same way twice, so that it is not the wire.
        """
        mirror.corrupt += is_first  # all wrong chunks of an answer may have one cause
        times, found = mirror.wrong.get(index, (0, ""))
        mirror.wrong[index] = (times + 1 if found == error.found else 1, error.found)
        if mirror.out:
            return
        self._set_error(mirror, error)
        if any(other is not mirror and not other.out for other in self.all):
            mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS and mirror.corrupt * _TOLERATED > mirror.right
        else:
            mirror.out = mirror.wrong[index][0] >= CORRUPT_ATTEMPTS

    def _set_error(self, mirror: Mirror, error: FetchError) -> None:
        self._errors.append(error)
        mirror.error = error
        error.url = redact(mirror.url)

    def excluded_chunks(self, mirror: Mirror) -> Collection[int]:
        """The chunks not to request from `mirror`: wrong twice, or once if they were not wrong from another mirror."""
        if not mirror.wrong:
            return ()
        others = [other for other in self.all if other is not mirror and not other.out]
        return [
            index
            for index, (times, _) in mirror.wrong.items()
            if times >= CORRUPT_ATTEMPTS or any(index not in other.wrong for other in others)
        ]

    def verdict(self) -> FetchError:
        """The error that names the cause once all attempts are used up: the last transient one, else the last.

        A size that one mirror claims, and another does not, is not the cause.
        """
        errors = [mirror.error for mirror in self.all if mirror.error]
        if not errors:
            return PolicyError("it has no url to fetch it from")
        transient = [error for error in errors if error.transient]
        others = [error for error in errors if error.exit_code != Exit.NO_ROOM]
        return max(transient or others or errors, key=self._errors.index)


@lru_cache(maxsize=64)
def _shorter(timeouts: Timeouts) -> Timeouts:
    return replace(timeouts, connect=min(timeouts.connect, _PATIENCE), read=min(timeouts.read, _PATIENCE))


def pause(error: FetchError, *, failures: int, policy: RetryPolicy) -> float:
    """Seconds to wait before asking a mirror again after its `failures`-th failure in a row (from 1).

    Full jitter: anything up to base * 2^(failures-1), at most `policy.max`, so that a fleet that failed together does
    not retry together. The server's Retry-After, up to `policy.retry_after_max`, is added.
    """
    asked = error.retry_after if isinstance(error, NetworkError) and error.retry_after else 0.0
    most = min(policy.max, policy.base * 2.0 ** min(failures - 1, 60))
    return min(asked, policy.retry_after_max) + random.uniform(0.0, most)  # noqa: S311  spreads a load, keeps no secret
