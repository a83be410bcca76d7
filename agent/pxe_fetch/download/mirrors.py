"""The mirrors of one artifact: the record of each, which one to ask next, and which are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from math import inf

from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.url import redact
from pxe_fetch.deadline import pause
from pxe_fetch.download.context import Context, Host, Visit
from pxe_fetch.errors import (
    FetchError,
    IntegrityError,
    LimitedError,
    NetworkError,
    NotFoundError,
    OvertakenError,
    PolicyError,
    RangeError,
    RefusedError,
    RefusedRangeError,
    SilentError,
    SlowError,
    TrustError,
)
from pxe_fetch.plan import Source
from pxe_fetch.transport import Body, Request, has_ranges

RANGE_ATTEMPTS = 2  # of one mirror: after one wrong answer it may have ranges, after two it has none
_FORBIDDEN = 403
_OF_RANGES = frozenset({_FORBIDDEN, 404})  # some filters, caches and signed urls answer so to ranges alone
_LIMITED_ATTEMPTS = 5  # in a row that a host refuses a stream when it is this artifact's turn
_LAST_ATTEMPTS = 3  # failures in a row of all other mirrors, before one that is silent or odd is asked
_LARGEST_PAGE = 1024 * 1024  # bytes of a login or an error; what is larger may be a file with a wrong label
_TOLERATED = 8  # a mirror stays in use while fewer than one in this many of its chunks is wrong
# Seconds of silence after which another mirror is asked, if there is one: TCP has repeated a lost packet five times by
# then (RFC 6298: after 0.2, 0.4, 0.8, 1.6 and 3.2 s on Linux), and most servers begin their answer sooner.
_PATIENCE = 5.0
_SLOW = 1.5  # times as long, less than `timeouts.min_rate` is as good as silence
_RENEWALS = 2  # streams in a row of a mirror that was fast, until a new one will hardly be faster than a slow one
_IMPATIENT = 2  # failures in a row of one mirror from which on it gets all of `timeouts.read`: it may just be slow


@mutable_record
class Mirror:
    """One url, and what this download has learnt of it."""

    url: str
    tier: int  # from 0; it is asked only while those before it fail
    host: Host
    ranges: bool = field(init=False)  # assumed until it shows that it has none
    has_sent_range: bool = False  # exactly as requested
    offers_ranges: bool = False  # as its last answer shows
    renewals: int = 0  # how often a new stream may be tried though the last one was slow
    validator: str | None = None  # strong ETag of the bytes that it sent
    is_odd: bool = False  # its last answer was: a web page, or encoded
    is_page: bool = False  # its last answer was a web page
    has_odd_bytes: bool = False  # as is_odd, of the last answer of which bytes were kept
    turn: int = 0  # the number of the last request to it, from 1, among all for the artifact
    has_delivered: bool = False  # at least one byte
    failures: int = 0  # in a row, without new bytes
    limited: int = 0  # streams in a row that its host refused, serving others
    unranged: int = 0  # answers in a row that were not the requested range
    faults: Counter[str] = field(default_factory=Counter)  # its own, by the error's reference
    not_before: float = 0.0  # on the clock: do not ask it before then
    error: FetchError | None = None  # the last one
    out: bool = False  # will not be asked again
    # If several streams download one artifact:
    streams: int = 0  # open, or being opened
    has_answered: bool = False  # correctly
    bytes: int = 0  # received by its streams
    seconds: float = 0.0  # total time of its streams
    right: int = 0  # chunks
    wrong: dict[int, tuple[int, str]] = field(default_factory=dict)  # chunk -> how often it had what digest

    def __post_init__(self) -> None:
        self.ranges = has_ranges(self.url)

    @property
    def accepts_stream(self) -> bool:
        """Whether another stream may be tried: only one until the mirror is known to work, with ranges."""
        return self.streams == 0 or (self.has_answered and self.ranges and not self.failures and not self.unranged)

    @property
    def may_renew(self) -> bool:
        """Whether a new stream may be faster than its last, which was slow, and goes on where that ended."""
        return self.renewals > 0 and self.ranges and self.offers_ranges

    @property
    def corrupt(self) -> int:
        """How many of its answers had wrong bytes that were all its own."""
        return self.faults[IntegrityError.reference]

    @property
    def is_dead(self) -> bool:
        """Whether it has failed and never delivered anything."""
        return self.failures > 0 and not self.has_delivered

    @property
    def rate(self) -> float:
        """Bytes per second of one stream; 0 while unknown."""
        return self.bytes / self.seconds if self.seconds else 0.0

    @contextmanager
    def answer(self, request: Request, context: Context) -> Iterator[Body]:
        """The body that answers `request`; closed at the end. Raises as Transport.open, and LimitedError."""
        with self.host.visit(request.deadline) as visit:
            try:
                body = context.transports.of(self.url).open(request)
            except (NotFoundError, RefusedError) as error:
                if error.status in _OF_RANGES and request.is_ranged and self.ranges and not self.has_sent_range:
                    raise RefusedRangeError(f"{error}, perhaps only to ranges", status=error.status) from error
                if error.status == _FORBIDDEN:
                    self._check_limit(error, visit, context)
                raise
            except RangeError:
                raise
            except NetworkError as error:
                self._check_limit(error, visit, context)
                raise
            self.limited = 0
            self.faults.pop(RefusedError.reference, None)  # alerts of TLS, which somebody else may have sent
            self.faults.pop(TrustError.reference, None)
            visit.is_served = True
            self.is_odd, self.is_page = bool(body.remark), body.is_page
            self.offers_ranges = body.offers_ranges
            try:
                yield body
            except OvertakenError:
                raise
            except IntegrityError as error:
                if body.is_page and (body.total or 0) <= _LARGEST_PAGE:
                    error.limit = inf  # it is not the file that is wrong
                raise
            except (SilentError, SlowError):  # a path that loses long packets lets a header pass
                visit.silence = request.timeouts.read
                raise
            finally:
                body.close()

    def _check_limit(self, error: FetchError, visit: Visit, context: Context) -> None:
        """Raise LimitedError if `error` only means that its host serves this node no more streams."""
        if self.host.is_limit(error, visit) and self.limited < _LIMITED_ATTEMPTS:
            self.limited += 1
            context.events.limited(url=redact(self.url), streams=self.host.limit, error=str(error))
            raise LimitedError(str(error), status=error.status) from error

    def count(self, error: FetchError) -> int:
        """Count `error` as one of its own faults; how many of this kind there are now."""
        self.faults[error.reference] += 1
        return self.faults[error.reference]

    def ignored_range(self) -> None:
        """Record an answer that was not the requested range."""
        self.unranged += 1
        self.ranges = self.unranged < RANGE_ATTEMPTS


class Mirrors:
    """All mirrors of a source. One that fails has to wait, so that others are asked first."""

    def __init__(self, source: Source, context: Context) -> None:
        self.all: Sequence[Mirror] = [
            Mirror(url=url, tier=number, host=context.host(url))
            for number, tier in enumerate(source.mirrors)
            for url in tier
        ]
        self._source = source
        self._events = context.events
        self._clock = context.clock
        self._errors: list[FetchError] = []

    def others(self, mirror: Mirror) -> Sequence[Mirror]:
        """Those beside `mirror` that may still be asked."""
        return [one for one in self.all if one is not mirror and not one.out]

    def next(self, *, prefer_ranges: bool, without: Collection[Mirror] = ()) -> Mirror | None:
        """The mirror to ask next: the one that may be asked soonest, the best of several. None if none is left.

        If ranges are preferred, a mirror that has them is worth a short wait.
        """
        return next(iter(self._ranked(prefer_ranges=prefer_ranges, without=without)), None)

    def ready(self, *, without: Collection[Mirror] = ()) -> Iterator[Mirror]:
        """The mirrors that may get another stream now and are not in `without`, best first.

        A mirror without ranges gets one stream, and only if no other mirror of its tier has ranges. A tier is omitted
        while a mirror of one before it works, if only for streams that its host already serves.
        """
        now, has_ranges, working = self._clock.now(), False, len(self.all)
        for mirror in self._ranked(prefer_ranges=True, without=without):
            if mirror.tier > working or mirror.host.is_full() or self._is_last_resort(mirror, without=without):
                return
            if mirror.not_before > now:
                continue
            if not mirror.ranges and (has_ranges or any(one.streams for one in self.all)):
                return
            has_ranges |= mirror.ranges
            if mirror.accepts_stream:
                yield mirror
            if not mirror.failures:
                working = mirror.tier

    def _ranked(self, *, prefer_ranges: bool, without: Collection[Mirror]) -> Sequence[Mirror]:
        """Those that may still be asked, the best one first."""
        now, base = self._clock.now(), self._source.retry.base
        usable = [one for one in self.all if not one.out and one not in without]
        last = [one for one in usable if self._is_last_resort(one, without=without)]
        due = {one.tier for one in usable if self._is_due(one, now) and one not in last}

        def rank(mirror: Mirror) -> tuple[float, ...]:
            is_behind = prefer_ranges and not mirror.ranges
            return (
                mirror in last,
                mirror.tier if mirror.tier in due else len(self.all),
                mirror.host.is_full(),
                max(mirror.not_before, now) + (base if is_behind else 0.0),
                is_behind,
                mirror.is_dead,
                mirror.corrupt,
                mirror.streams,
                mirror.turn,
            )

        return sorted(usable, key=rank)

    def _is_due(self, mirror: Mirror, now: float) -> bool:
        """Whether it comes before later tiers: one that failed does so after its wait, once they have had a turn.

        Else they would never be asked if failing takes longer than the waits, as with a cache that answers 504. Without
        ranges it does not: it would send again what has come, which a later mirror with ranges need not.
        """
        later = [one for one in self.all if one.tier > mirror.tier and not one.out]
        if not mirror.failures or not later:
            return mirror.not_before <= now
        begins_anew = not mirror.ranges and any(one.ranges for one in later)
        return mirror.not_before <= now and not begins_anew and mirror.turn < max(one.turn for one in later)

    def _is_last_resort(self, mirror: Mirror, *, without: Collection[Mirror]) -> bool:
        """Whether its host is silent, or its answer was odd, and another mirror which may work has neither."""
        return (mirror.is_odd or mirror.host.is_silent()) and any(
            one.failures < _LAST_ATTEMPTS and not one.is_odd and not one.host.is_silent()
            for one in self.others(mirror)
            if one not in without
        )

    def may_continue(self, mirror: Mirror, *, length: int, origins: Collection[str]) -> bool:
        """Whether `length` bytes of the mirrors `origins` may be followed by bytes of `mirror`.

        Odd ones are hardly the file's: another mirror does not continue them, and nobody continues those of a web page.
        """
        is_file = mirror.is_odd and (length > _LARGEST_PAGE or not mirror.is_page)
        return is_file or not any(one.has_odd_bytes and one.url in origins for one in self.all)

    def timeouts(self, mirror: Mirror) -> Timeouts:
        """Those of a request to `mirror`: shorter if another mirror may answer sooner, or send faster.

        A cache may have to wait for its server, and is spared no load if its clients turn to that: silence is borne for
        all of `timeouts.read` if only later tiers are left.
        """
        better = self.others(mirror)
        if not mirror.is_odd:
            better = [one for one in better if not one.is_dead and not one.host.is_silent()]
        if not better or (mirror.failures >= _IMPATIENT and not mirror.is_odd):
            return self._source.timeouts
        is_near = mirror.is_odd or any(one.tier <= mirror.tier for one in better)
        patience = _PATIENCE if is_near else self._source.timeouts.read
        given = self._source.timeouts
        read, window = min(given.read, patience), given.min_rate_window
        if any(not one.failures for one in better):
            window = min(window, _SLOW * read)
        return replace(given, connect=min(given.connect, _PATIENCE), read=read, min_rate_window=window)

    def may_leave(self, mirror: Mirror, *, without: Collection[Mirror] = ()) -> bool:
        """Whether another mirror, which can be asked now, may be faster than `mirror`, whose stream is slow.

        If none can, or it is in `without`, a new stream of `mirror` itself may be, where an earlier one was.
        """
        now, others = self._clock.now(), self.others(mirror)
        for one in others:
            if one not in without and one.not_before <= now and (one.may_renew or not one.host.is_silent()):
                return True
        return bool(others) and mirror.may_renew

    def had_minimum_rate(self, mirror: Mirror) -> None:
        """Record that a stream of `mirror` had `timeouts.min_rate`."""
        mirror.renewals = _RENEWALS

    def another_may_resume(self, mirror: Mirror) -> bool:
        """Whether another mirror could be asked for a range, now or after a short wait."""
        soon = self._clock.now() + self._source.retry.base
        return any(one.ranges and one.not_before <= soon for one in self.others(mirror))

    def is_waiting(self) -> bool:
        """Whether a mirror may be asked as soon as its host has ended another stream."""
        return any(not one.out and one.host.is_full() for one in self.all)

    def failed(self, mirror: Mirror, error: FetchError, *, progressed: bool, blamed: bool) -> None:
        """Record that `mirror` failed with `error`; `blamed`: it sent all of the wrong bytes.

        A dropped mirror keeps the error that caused it to be dropped, however its other streams end.
        """
        if mirror.out:
            return
        now, is_own = self._clock.now(), True
        mirror.failures = 1 if progressed and not isinstance(error, SlowError) else mirror.failures + 1
        mirror.not_before = now + pause(error, failures=mirror.failures, policy=self._source.retry)
        match error:
            case OvertakenError():
                mirror.not_before += self._source.retry.base  # the faster mirror goes first
            case SlowError():
                mirror.renewals -= 1
            case RangeError() if mirror.ranges:
                mirror.ignored_range()
                mirror.ranges &= not isinstance(error, RefusedRangeError)
                mirror.not_before = now  # it works: ask it again, or for the whole
            case IntegrityError():
                is_own = blamed and error.limit < inf
            case NotFoundError():
                is_own = not mirror.has_delivered  # if it has, it does have the file
        self._record(mirror, error, drop=is_own and mirror.count(error) >= error.limit)

    def wrong_chunk(self, mirror: Mirror, index: int, error: IntegrityError, *, is_first: bool) -> None:
        """Record that chunk `index`, all from `mirror`, was wrong; `is_first`: the first wrong one of its answer.

        The mirror is dropped if too large a share of its chunks is wrong and there is another mirror; otherwise once
        one chunk was wrong in the same way twice, so that it is not the wire.
        """
        # All wrong chunks of an answer may have one cause.
        all_wrong = mirror.count(error) if is_first else mirror.corrupt
        times, found = mirror.wrong.get(index, (0, ""))
        times = times + 1 if found == error.found else 1
        mirror.wrong[index] = (times, error.found)
        if mirror.out:
            return
        if self.others(mirror):
            drop = all_wrong >= error.limit and all_wrong * _TOLERATED > mirror.right
        else:
            drop = times >= error.limit
        self._record(mirror, error, drop=drop)

    def _record(self, mirror: Mirror, error: FetchError, *, drop: bool) -> None:
        self._errors.append(error)
        mirror.error, mirror.out = error, drop
        error.url = redact(mirror.url)
        if drop:
            self._events.mirror_dropped(self._source.name, url=error.url, reason=str(error))

    def excluded_chunks(self, mirror: Mirror) -> Collection[int]:
        """The chunks not to request from `mirror`: wrong twice, or once if they were not wrong from another mirror."""
        if not mirror.wrong:
            return ()
        others = self.others(mirror)
        return [
            index
            for index, (times, _) in mirror.wrong.items()
            if times >= IntegrityError.limit or any(index not in other.wrong for other in others)
        ]

    def verdict(self) -> FetchError:
        """The error that names the cause once all attempts are used up: the last transient one, else the last.

        A size that one mirror claims, and another does not, is not the cause; nor is that caches do not have the file,
        if the last tier refuses it.
        """
        last = max((mirror.tier for mirror in self.all), default=0)
        finals = [mirror.error for mirror in self.all if mirror.tier == last]
        is_refused = all(
            isinstance(error, PolicyError | RefusedError | TrustError) and not error.transient for error in finals
        )
        errors = [
            mirror.error
            for mirror in self.all
            if mirror.error and not (is_refused and mirror.tier < last and isinstance(mirror.error, NotFoundError))
        ]
        if not errors:
            return PolicyError("it has no url to fetch it from")
        return max(
            errors, key=lambda error: (error.exit_code != Exit.NO_ROOM, error.transient, self._errors.index(error))
        )
