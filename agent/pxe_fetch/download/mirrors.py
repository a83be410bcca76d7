"""The mirrors of one artifact: which one to ask next, what each has done so far, and which are out."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.contract.url import redact
from pxe_fetch.errors import FetchError, IntegrityError, NetworkError, NotFoundError, PolicyError, RangeError
from pxe_fetch.plan import Source
from pxe_fetch.transport import has_ranges

NOT_FOUND_ATTEMPTS = 4  # of one mirror: it may not be in sync yet, but mostly the name is wrong
CORRUPT_ATTEMPTS = 2  # of one mirror: once may be the wire, twice is the file
RANGE_ATTEMPTS = 2  # of one mirror: once it may have answered something else than the range, twice it has none
_TOLERATED = 8  # a mirror goes on giving chunks while fewer than one in so many of them is wrong


class OvertakenError(NetworkError):
    """A stream was ended because another mirror is much quicker with what is left."""

    is_counted = False


@dataclass(kw_only=True, slots=True, eq=False)
class Mirror:
    """One url and its record in this download."""

    url: str
    position: int  # in the list, from 0
    ranges: bool = field(init=False)  # as far as is known: until it shows that it has none
    validator: str | None = None  # strong ETag of the bytes that it has sent
    asked: int = 0
    asked_since_progress: bool = False  # progress of the artifact, whichever mirror made it
    has_delivered: bool = False  # any bytes
    failures: int = 0  # in a row, without new bytes
    not_found: int = 0  # times that it said 404
    corrupt: int = 0  # answers with wrong bytes that came from it alone
    unranged: int = 0  # answers in a row that were not the range asked for
    not_before: float = 0.0  # on the clock's now(): leave it alone until then
    error: FetchError | None = None  # the last one
    out: bool = False  # will not be asked again
    # Where several streams download one artifact:
    streams: int = 0  # open, or being opened
    max_streams: float = math.inf  # known once it has refused one more
    has_answered: bool = False  # as it should
    bytes: int = 0  # that its streams received
    seconds: float = 0.0  # that they took, added up
    right: int = 0  # chunks
    wrong: dict[int, int] = field(default_factory=dict)  # chunk -> how often it came wrong from here alone
    is_reported: bool = False  # that it is out

    def __post_init__(self) -> None:
        self.ranges = has_ranges(self.url)

    @property
    def accepts_stream(self) -> bool:
        """Whether one more stream may be tried: a single one, as long as it is not known to work, with ranges."""
        if not self.has_answered or self.failures or self.unranged or not self.ranges:
            return self.streams == 0
        return self.streams < self.max_streams

    @property
    def is_dead(self) -> bool:
        """Whether it has failed and never delivered anything."""
        return self.failures > 0 and not self.has_delivered

    @property
    def rate(self) -> float:
        """Bytes a second of one of its streams; 0 while unknown."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def ask(self) -> None:
        """Count one request."""
        self.asked += 1
        self.asked_since_progress = True

    def ignored_range(self) -> None:
        """Record an answer that was not the range asked for."""
        self.unranged += 1
        self.ranges = self.unranged < RANGE_ATTEMPTS


class Mirrors:
    """All mirrors of a source. One that fails has to wait, so that the others come first."""

    def __init__(self, source: Source) -> None:
        self.all: Sequence[Mirror] = [Mirror(url=url, position=index) for index, url in enumerate(source.urls)]
        self._keep_order = source.keep_order
        self._policy = source.retry
        self._errors: list[FetchError] = []

    def next(self, now: float, *, prefer_ranges: bool, without: Collection[Mirror] = ()) -> Mirror | None:
        """The mirror to ask next: the one that may be asked soonest, of several the best. None when none is left.

        Where ranges are preferred, a mirror that has them is worth a short wait.
        """

        def rank(mirror: Mirror) -> tuple[float, bool, int, int]:
            handicap = self._policy.base if prefer_ranges and not mirror.ranges else 0.0
            return max(mirror.not_before, now) + handicap, *self._quality(mirror)

        return min((one for one in self.all if not one.out and one not in without), key=rank, default=None)

    def ready(self, now: float, *, without: Collection[Mirror] = ()) -> Iterator[Mirror]:
        """The mirrors that may get one more stream now, the best first, but for those in `without`.

        A mirror without ranges gets one stream, and only where no other mirror has ranges. In `listed` order a mirror
        is left out while one before it works.
        """
        usable = [one for one in self.all if not one.out and self._is_due_soon(one, now) and one not in without]
        ranged = [one for one in usable if one.ranges]
        for mirror in sorted(ranged, key=self._load):
            if mirror.not_before > now:
                continue
            if mirror.accepts_stream:
                yield mirror
            if self._keep_order and not mirror.failures and not mirror.corrupt:
                return
        if not ranged and not any(mirror.streams for mirror in self.all):
            yield from (mirror for mirror in usable if mirror.not_before <= now)

    def _quality(self, mirror: Mirror) -> tuple[bool, int, int]:
        """Lower is better: any bytes, then right bytes, then the order of the list or the fewest requests."""
        return mirror.is_dead, mirror.corrupt, mirror.position if self._keep_order else mirror.asked

    def _load(self, mirror: Mirror) -> tuple[bool, int, int, int]:
        is_dead, corrupt, rest = self._quality(mirror)
        return is_dead, corrupt, 0 if self._keep_order else mirror.streams, rest

    def _is_due_soon(self, mirror: Mirror, now: float) -> bool:
        return mirror.not_before <= now + self._policy.base

    def another_may_resume(self, mirror: Mirror, *, now: float) -> bool:
        """Whether another mirror could be asked for a range, now or after a short wait."""
        return any(
            other is not mirror and not other.out and other.ranges and self._is_due_soon(other, now)
            for other in self.all
        )

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

    def failed(self, mirror: Mirror, error: FetchError, *, now: float, progressed: bool, blamed: bool) -> None:
        """Record that `mirror` failed with `error`; `blamed`: wrong bytes came from it alone.

        For a mirror that is out the error that put it out stays its last one, however its other streams end.
        """
        if mirror.out:
            return
        self._set_error(mirror, error)
        mirror.failures = 1 if progressed else mirror.failures + 1
        mirror.not_before = now + pause(error, failures=mirror.failures, policy=self._policy)
        if isinstance(error, OvertakenError):
            mirror.not_before += self._policy.base  # the mirror that takes over comes first
        match error:
            case RangeError() if mirror.ranges:
                mirror.ignored_range()
                mirror.not_before = now  # it works; it only has to be asked again, or for all of it
            case IntegrityError():
                mirror.corrupt += blamed
                mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS
            case NotFoundError():
                mirror.not_found += 1
                mirror.out = mirror.not_found >= NOT_FOUND_ATTEMPTS
            case _:
                mirror.out = not error.transient

    def wrong_chunk(self, mirror: Mirror, index: int, error: FetchError, *, is_first: bool) -> None:
        """Record that chunk `index` came wrong, from `mirror` alone; `is_first`: the first one of its answer.

        The mirror is out when too large a share of its chunks is wrong, if there is another one; else when a chunk
        came wrong so often that there is nobody left to ask for it.
        """
        mirror.corrupt += is_first  # all wrong chunks of one answer may have the same cause
        mirror.wrong[index] = mirror.wrong.get(index, 0) + 1
        if mirror.out:
            return
        self._set_error(mirror, error)
        if any(other is not mirror and not other.out for other in self.all):
            mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS and mirror.corrupt * _TOLERATED > mirror.right
        else:
            mirror.out = mirror.wrong[index] >= CORRUPT_ATTEMPTS

    def _set_error(self, mirror: Mirror, error: FetchError) -> None:
        self._errors.append(error)
        mirror.error = error
        error.url = redact(mirror.url)

    def excluded_chunks(self, mirror: Mirror) -> Collection[int]:
        """The chunks not to ask `mirror` for: it gave them wrong twice, or once and another mirror never did."""
        if not mirror.wrong:
            return ()
        others = [other for other in self.all if other is not mirror and not other.out]
        return [
            index
            for index, times in mirror.wrong.items()
            if times >= CORRUPT_ATTEMPTS or any(index not in other.wrong for other in others)
        ]

    def refused_stream(self, mirror: Mirror, error: FetchError) -> bool:
        """Whether `error`, of a stream that got no answer, only says that `mirror` serves no more streams at once."""
        if isinstance(error, NetworkError) and mirror.has_answered and mirror.streams and not mirror.failures:
            mirror.max_streams = mirror.streams
            return True
        return False

    def verdict(self) -> FetchError:
        """The error that names the cause once all attempts are used up: the last transient one, else the last."""
        errors = [mirror.error for mirror in self.all if mirror.error]
        if not errors:
            return PolicyError("there is no url to fetch it from")
        transient = [error for error in errors if error.transient]
        return max(transient or errors, key=self._errors.index)


def pause(error: FetchError, *, failures: int, policy: RetryPolicy) -> float:
    """Seconds to leave a mirror alone after its `failures`-th failure in a row (from 1).

    Full jitter: anything up to base * 2^(failures-1), at most `policy.max`, so that a fleet that failed together does
    not come back together. What a server asks for with Retry-After, up to `policy.retry_after_max`, comes on top.
    """
    asked = error.retry_after if isinstance(error, NetworkError) and error.retry_after else 0.0
    most = min(policy.max, policy.base * 2.0 ** min(failures - 1, 60))
    return min(asked, policy.retry_after_max) + random.uniform(0.0, most)  # noqa: S311  spreads a load, keeps no secret
