"""The mirrors of one artifact: whose turn it is, what each has done, and which of them are out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.download.retry import CORRUPT_ATTEMPTS, NOT_FOUND_ATTEMPTS, RANGE_ATTEMPTS, pause
from pxe_fetch.errors import FetchError, IntegrityError, NotFoundError, RangeError
from pxe_fetch.redact import redact
from pxe_fetch.transport import has_ranges


@dataclass(kw_only=True, slots=True, eq=False)
class Mirror:
    """One url and its record in this transfer."""

    url: str
    validator: str | None = None  # strong ETag of the bytes it has sent
    ranges: bool = field(init=False)  # as far as is known: until it shows that it has none
    odd: int = 0  # answers in a row that were not the range that was asked for
    asked: int = 0
    failures: int = 0  # in a row, without new bytes
    missing: int = 0  # times it said 404
    corrupt: int = 0  # times its bytes were wrong
    not_before: float = 0.0  # on the clock's now(): leave it alone until then
    error: FetchError | None = None  # the last one
    out: bool = False  # will not be asked again

    def __post_init__(self) -> None:
        self.ranges = has_ranges(self.url)

    def gave_no_range(self) -> None:
        """It answered something else than the range that it was asked for."""
        self.odd += 1
        self.ranges = self.odd < RANGE_ATTEMPTS


M = TypeVar("M", bound=Mirror)


class Mirrors(Generic[M]):
    """Asked in the order given; one that fails has to wait its turn, so that the others come first."""

    def __init__(self, mirrors: Sequence[M], *, policy: RetryPolicy) -> None:
        self._mirrors = tuple(mirrors)
        self._policy = policy
        self._errors: list[FetchError] = []

    def next(self, now: float, *, resuming: bool) -> M | None:
        """Who is to be asked next: who may be asked soonest, of several the best. None when all are out.

        While there is something to resume, one that has ranges is worth a short wait; one whose bytes were wrong is
        worse than one whose were not; else it is the one that was asked less often.
        """

        def rank(mirror: M) -> tuple[float, int, int]:
            handicap = self._policy.base if resuming and not mirror.ranges else 0.0
            return max(mirror.not_before, now) + handicap, mirror.corrupt, mirror.asked

        return min((mirror for mirror in self._mirrors if not mirror.out), key=rank, default=None)

    def another_may_resume(self, mirror: M, *, now: float) -> bool:
        """Whether somebody else could be asked for a range, now or after a short wait."""
        return any(
            other is not mirror and not other.out and other.ranges and other.not_before <= now + self._policy.base
            for other in self._mirrors
        )

    def asked(self) -> int:
        """How many of them were."""
        return sum(mirror.asked > 0 for mirror in self._mirrors)

    def untried(self) -> bool:
        """Whether somebody was never asked."""
        return any(not mirror.asked and not mirror.out for mirror in self._mirrors)

    def failed(self, mirror: M, error: FetchError, *, now: float, progressed: bool, blamed: bool) -> None:
        """Record that `mirror` failed with `error`; `blamed`: wrong bytes were its own and nobody else's.

        What had it be out stays the last that is said of it, however its other streams end.
        """
        if mirror.out:
            return
        self._errors.append(error)
        mirror.error = error
        error.url = redact(mirror.url)
        mirror.failures = 1 if progressed else mirror.failures + 1
        mirror.not_before = now + pause(error, failures=mirror.failures, policy=self._policy)
        match error:
            case RangeError() if mirror.ranges:
                mirror.gave_no_range()
                mirror.not_before = now  # it is there; it only has to be asked again, or for all of it
            case IntegrityError():
                mirror.corrupt += blamed
                mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS
            case NotFoundError():
                mirror.missing += 1
                mirror.out = mirror.missing >= NOT_FOUND_ATTEMPTS
            case _:
                mirror.out = not error.transient

    def verdict(self) -> FetchError:
        """What names the cause when all attempts are used up: the last error that time may heal, else the last."""
        lasting = [mirror.error for mirror in self._mirrors if mirror.error]
        healing = [error for error in lasting if error.transient]
        return max(healing or lasting, key=self._errors.index)
