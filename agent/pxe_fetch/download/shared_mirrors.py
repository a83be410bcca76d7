"""The mirrors of one artifact that several streams come from at once: who serves how many of them, and which chunks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.download.mirrors import Mirror, Mirrors
from pxe_fetch.download.retry import CORRUPT_ATTEMPTS
from pxe_fetch.errors import FetchError, NetworkError
from pxe_fetch.redact import redact

_FORGIVEN = 64  # right chunks that make up for a wrong one


@dataclass(kw_only=True, slots=True, eq=False)
class SharedMirror(Mirror):
    """A mirror, and what its streams have shown of it."""

    streams: int = 0  # that are open, or being opened
    most: float = math.inf  # streams at once, since it would not serve more
    proven: bool = False  # it has answered as it should
    right: int = 0  # chunks
    wrong: dict[int, int] = field(default_factory=dict)  # chunk -> how often it came wrong from here alone
    told: bool = False  # that it is out

    @property
    def room(self) -> bool:
        """Whether one more stream may be tried: one alone, as long as it is not known to work, with ranges."""
        if not self.proven or self.failures or self.odd or not self.ranges:
            return self.streams == 0
        return self.streams < self.most


class SharedMirrors(Mirrors[SharedMirror]):
    """A stream goes to who serves the fewest; one that failed has to wait, and is then tried by one stream alone."""

    def __init__(self, urls: Sequence[str], *, policy: RetryPolicy) -> None:
        super().__init__([SharedMirror(url=url) for url in urls], policy=policy)

    def ready(self, now: float, *, without: Collection[SharedMirror] = ()) -> Iterator[SharedMirror]:
        """Who may be asked now, the best first, but for those in `without`.

        Who has no ranges serves one stream, and only where nobody else has them.
        """
        soon = [mirror for mirror in self._mirrors if self._soon(mirror, now) and mirror not in without]
        ranged = [mirror for mirror in soon if mirror.ranges]
        for mirror in sorted(ranged, key=lambda mirror: (mirror.corrupt, mirror.streams, mirror.asked)):
            if mirror.room and mirror.not_before <= now:
                yield mirror
        if not ranged and not any(mirror.streams for mirror in self._mirrors):
            yield from (mirror for mirror in soon if mirror.not_before <= now)

    def _soon(self, mirror: SharedMirror, now: float) -> bool:
        return not mirror.out and mirror.not_before <= now + self._policy.base

    def soonest(self, now: float, *, without: Collection[SharedMirror] = ()) -> SharedMirror | None:
        """Who may be asked next, now or later; None when all others than those in `without` are out."""

        def rank(mirror: SharedMirror) -> tuple[float, int, int]:
            handicap = 0.0 if mirror.ranges else self._policy.base
            return max(mirror.not_before, now) + handicap, mirror.corrupt, mirror.asked

        return min((one for one in self._mirrors if not one.out and one not in without), key=rank, default=None)

    def all(self) -> Sequence[SharedMirror]:
        """All of them, those too that are out."""
        return self._mirrors

    def not_from(self, mirror: SharedMirror) -> Collection[int]:
        """The chunks that are not to be asked of `mirror`: it gave them wrong twice, or once and another never did."""
        if not mirror.wrong:
            return ()
        others = [other for other in self._mirrors if other is not mirror and not other.out]
        return [
            index
            for index, times in mirror.wrong.items()
            if times >= CORRUPT_ATTEMPTS or any(index not in other.wrong for other in others)
        ]

    def gave_wrong(self, mirror: SharedMirror, index: int, error: FetchError, *, is_first: bool) -> None:
        """A chunk came wrong, from this mirror alone, the first of its answer or not.

        Who gives many answers with such, for few right chunks, is out: all of one answer may have the same cause.
        """
        mirror.corrupt += is_first
        mirror.wrong[index] = mirror.wrong.get(index, 0) + 1
        if not mirror.out:
            self._errors.append(error)
            mirror.error = error
            error.url = redact(mirror.url)
            mirror.out = mirror.corrupt >= CORRUPT_ATTEMPTS + mirror.right // _FORGIVEN

    def refused_more(self, mirror: SharedMirror, error: FetchError) -> bool:
        """Whether `error`, of a stream that did not begin, says only that `mirror` serves no more than it does."""
        if isinstance(error, NetworkError) and mirror.proven and mirror.streams and not mirror.failures:
            mirror.most = mirror.streams
            return True
        return False
