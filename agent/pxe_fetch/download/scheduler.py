"""What the streams of one artifact share: which chunks are whose, which mirror serves whom, and what has happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.deadline import Clock
from pxe_fetch.download.chunk_tracker import ChunkTracker, PartialChunk, Run
from pxe_fetch.download.events import Events
from pxe_fetch.download.shared_mirrors import SharedMirror, SharedMirrors
from pxe_fetch.download.stream_budget import StreamBudget
from pxe_fetch.errors import (
    CannotCreateError,
    DeadlineError,
    DiskError,
    FetchError,
    IntegrityError,
    NetworkError,
    NoRoomError,
    RangeError,
    StoppedError,
)
from pxe_fetch.redact import redact

_WORTH_IT = 1.0  # seconds that a run has still to take, for another stream to take half of it away
_TOLD_EVERY = 0.5  # seconds between two reports of progress
_FINAL = (CannotCreateError, DiskError, NoRoomError, DeadlineError, StoppedError)  # no mirror can help


def is_final(error: FetchError) -> bool:
    """Whether `error` ends the transfer: it is about our side, or nobody has foreseen it."""
    return isinstance(error, _FINAL) or type(error) is FetchError


@dataclass(kw_only=True, slots=True, eq=False)
class Assignment:
    """One request: a run of chunks, and the mirror that is asked for it."""

    mirror: SharedMirror
    run: Run
    began_with: int = 0  # bytes of the run's first chunk
    has_begun: bool = False  # the mirror has answered as it should
    is_range: bool = False  # with the range that was asked for, and no more
    gained: bool = False  # something new came of it that is still good
    has_erred: bool = False  # a chunk came wrong from this mirror alone
    failure: FetchError | None = None  # why its stream is to end


class ChunkScheduler:
    """Safe to use from several threads; `changed` is notified when there may be something new to do."""

    def __init__(
        self,
        *,
        name: str,
        pieces: ChunkMap,
        mirrors: SharedMirrors,
        streams: StreamBudget,
        retry: RetryPolicy,
        events: Events,
        clock: Clock,
    ) -> None:
        self.changed = Condition()
        self.runs = ChunkTracker(pieces=pieces)
        self.mirrors = mirrors
        self.working = 0  # streams
        self.attempts = 0  # the first, and one more for each that failed
        self.idle = 0  # attempts in a row that failed and brought nothing new
        self.here = 0  # bytes that need not be fetched again
        self.received = 0  # bytes over the wire, those fetched twice counted twice
        self.kept = 0  # bytes of an earlier run
        self.last: SharedMirror | None = None  # who was asked last, or gave the last right chunk
        self._name = name
        self._pieces = pieces
        self._streams = streams
        self._retry = retry
        self._events = events
        self._clock = clock
        self._bad: set[int] = set()  # chunks that came wrong, until they are right
        self._one_source: set[int] = set()  # of these, who was to blame for which nobody knows
        self._told = 0.0
        self._resuming = False

    def job(self) -> Assignment | None:
        """What one more stream could do now; None where there is nothing. `end` is to be called for it."""
        with self.changed:
            if self.is_exhausted():
                return None
            now = self._clock.now()
            for mirror in self.mirrors.ready(now, without=self._useless()):
                if run := self._run(mirror, now):
                    mirror.streams += 1
                    mirror.asked += 1
                    self.working += 1
                    self.attempts = self.attempts or 1
                    self.last = mirror
                    return Assignment(mirror=mirror, run=run, began_with=run.beginning.length if run.beginning else 0)
            return None

    def _useless(self) -> Sequence[SharedMirror]:
        """Those that have nothing to give of what is missing."""
        if not self.runs.gap():
            return ()
        return [one for one in self.mirrors.all() if not self.runs.gap(without=self.mirrors.not_from(one))]

    def _run(self, mirror: SharedMirror, now: float) -> Run | None:
        without = self.mirrors.not_from(mirror)
        if gap := self.runs.gap(without=without):
            first, end = gap
            if mirror.ranges:
                share = -(-self.runs.missing() // (1 + self._streams.free))
                end = min(end, first + share)
            run = self.runs.take(first, end, now=now)
            if run.beginning and first in self._one_source and run.beginning.sources != {mirror.url}:
                self.here -= run.beginning.length
                run.at, run.beginning = self._pieces.start(first), None
                run.upto = run.at
            return run
        if without or not mirror.ranges:
            return None
        return self._steal(now)

    def _steal(self, now: float) -> Run | None:
        """Half of what takes the longest, where that is long."""

        def still(run: Run) -> float:
            bytes_left = self._pieces.start(run.end) - run.at
            return bytes_left * (now - run.since) / run.came if run.came else float("inf")

        slow = [run for run in self.runs.active if now - run.since >= _WORTH_IT and still(run) >= _WORTH_IT]
        for run in sorted(slow, key=still, reverse=True):
            if found := self.runs.split(run, now=now):
                return found
        return None

    def gave_no_range(self, job: Assignment) -> None:
        """All of it comes in answer to a range."""
        with self.changed:
            job.mirror.gave_no_range()

    def begins(self, job: Assignment, *, total: int | None, is_range: bool) -> None:
        """The job's mirror has answered, and the bytes that were asked for follow: they alone, or all behind them."""
        with self.changed:
            job.has_begun = job.mirror.proven = True
            job.is_range = is_range
            self.last = job.mirror
            resuming, self._resuming = self._resuming or bool(self.kept and not self.received), False
            here, is_first = self.here, self.received == 0
        url = redact(job.mirror.url)
        if not is_first:
            self._events.progress(self._name, received=here, total=self._pieces.size)
        self._events.started(self._name, url=url, offset=here, total=total or self._pieces.size)
        if resuming and here:
            self._events.resumed(self._name, url=url, offset=here)

    def take_up(self, index: int, beginning: PartialChunk) -> None:
        """An earlier run left some of the chunk's first bytes."""
        self.runs.begun(index, beginning)
        self.here += beginning.length

    def goes_on(self, job: Assignment) -> bool:
        """Whether a body that has all of it comes by more that is missing, which is then the job's run.

        What is here already is read once more on the way there only where nobody is known to have ranges.
        """
        with self.changed:
            run, mirror, now = job.run, job.mirror, self._clock.now()
            gap = self.runs.gap(start=run.end, without=self.mirrors.not_from(mirror))
            if gap and gap[0] > run.end and (mirror.ranges or self.mirrors.another_may_resume(mirror, now=now)):
                return False
            if gap:
                self.runs.release(run)
                job.run = self.runs.take(*gap, now=now)
            return gap is not None

    def skipped(self, count: int) -> None:
        """So many bytes came that nobody needed."""
        with self.changed:
            self.received += count

    def reach(self, job: Assignment, most: int) -> int:
        """How many bytes, up to `most`, the job's stream may fill from where it is; 0 at the end of its run.

        Never beyond the chunk: what follows a wrong one is not to be read.
        """
        with self.changed:
            run = job.run
            run.upto = min(run.at + most, self._pieces.start(min(self._pieces.at(run.at) + 1, run.end)))
            return run.upto - run.at

    def came(self, job: Assignment, count: int) -> None:
        """So many bytes were written at the run's place."""
        now = self._clock.now()
        with self.changed:
            job.run.at += count
            job.run.came += count
            self.received += count
            self.here += count
            is_time = now - self._told >= _TOLD_EVERY
            if is_time:
                self._told = now
            here = self.here
        if is_time:
            self._events.progress(self._name, received=here, total=self._pieces.size)

    def landed(self, job: Assignment, index: int, *, digest: bytes, sources: frozenset[str]) -> None:
        """A chunk is whole: right or wrong."""
        mirror, url = job.mirror, redact(job.mirror.url)
        with self.changed:
            if self._pieces.is_right(index, digest):
                self.runs.arrived(index)
                mirror.right += 1
                job.gained = True
                mirror.failures = self.idle = 0
                mirror.odd = 0 if job.is_range else mirror.odd
                self.last = mirror
                was_bad = index in self._bad
                self._bad.discard(index)
                self._one_source.discard(index)
                error = None
            else:
                error = self._wrong(job, index, digest=digest, sources=sources)
            self.changed.notify_all()
        if error:
            self._events.chunk_wrong(self._name, url=url, error=str(error))
        elif was_bad:
            self._events.chunk_mended(self._name, url=url, chunk=index)

    def _wrong(self, job: Assignment, index: int, *, digest: bytes, sources: frozenset[str]) -> IntegrityError:
        start, end = self._pieces.start(index), self._pieces.start(index + 1)
        expected = self._pieces.expected(index).hex()
        found = digest.hex()
        error = IntegrityError(
            f"wrong bytes from {start} to {end - 1}: chunk {index} has the sha256 {found[:16]}…, not {expected[:16]}…",
            expected=f"sha256:{expected}",
            found=f"sha256:{found}",
        )
        self.runs.spoiled(index)
        self.here -= end - start
        self._bad.add(index)
        self.attempts += not job.failure
        job.failure = job.failure or error  # its other chunks may be wrong for the same cause
        if sources == {job.mirror.url}:
            self.mirrors.gave_wrong(job.mirror, index, error, is_first=not job.has_erred)
            job.has_erred = True
        else:
            self._one_source.add(index)
        return error

    def end(self, job: Assignment, *, beginning: PartialChunk | None, error: FetchError | None) -> None:
        """The job's stream has ended, in the middle of a chunk whose `beginning` this is, and because of `error`."""
        with self.changed:
            if beginning and job.failure:  # it followed a wrong chunk
                self.here -= beginning.length
                beginning = None
            job.gained |= beginning is not None and beginning.length > job.began_with
            job.run.beginning = beginning
            self.runs.release(job.run)
            job.mirror.streams -= 1
            self.working -= 1
            self.changed.notify_all()
        if error and not is_final(error):
            self._failed(job, error)

    def _failed(self, job: Assignment, error: FetchError) -> None:
        mirror = job.mirror
        with self.changed:
            now = self._clock.now()
            is_counted = error is job.failure  # wrong bytes: when they landed
            self.attempts += not is_counted
            self._resuming = True
            is_news = mirror.ranges and isinstance(error, RangeError)  # it is yet to be asked again, or for all of it
            is_limit = not is_counted and not job.has_begun and self.mirrors.refused_more(mirror, error)
            if job.gained:
                self.idle = 0
            elif error.transient and error.is_counted and not is_limit and not is_news:
                self.idle += 1
            if not is_counted and not is_limit:
                blamed = isinstance(error, IntegrityError)
                self.mirrors.failed(mirror, error, now=now, progressed=job.gained, blamed=blamed)
            is_dropped = mirror.out and not mirror.told
            mirror.told = mirror.out
            attempt = self.attempts - 1
            following = self.mirrors.soonest(now)
            is_last = self.is_exhausted() and not self.working
        if is_dropped:
            self._events.mirror_dropped(self._name, url=redact(mirror.url), reason=str(error))
        if following and not is_last and not is_counted:
            self._events.retrying(
                self._name,
                url=redact(mirror.url),
                attempt=attempt,
                error=str(error),
                status=error.status if isinstance(error, NetworkError) else None,
                wait_seconds=max(0.0, following.not_before - now),
                next_url=redact(following.url),
            )

    def is_exhausted(self) -> bool:
        """Whether so many attempts brought nothing that no other is made."""
        return self.idle >= self._retry.attempts_without_progress and not self.mirrors.untried()

    def following(self) -> SharedMirror | None:
        """Who is to be asked next while nobody is at work; None when all attempts are used up."""
        with self.changed:
            if self.is_exhausted():
                return None
            return self.mirrors.soonest(self._clock.now(), without=self._useless())
