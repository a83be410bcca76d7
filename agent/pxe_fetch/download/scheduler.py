"""Decides which chunks a stream downloads next and from which mirror, and records the results."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Condition

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.url import redact
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.chunk_tracker import Assignment, ChunkRange, ChunkTracker, PartialChunk
from pxe_fetch.download.context import Context
from pxe_fetch.download.copy import PROGRESS_EVERY
from pxe_fetch.download.mirrors import Mirror, Mirrors, OvertakenError, pause
from pxe_fetch.download.partfile import check_size
from pxe_fetch.download.retry import Attempts, is_final
from pxe_fetch.errors import FetchError, IntegrityError
from pxe_fetch.plan import Source

_WORTH_SPLITTING = 1.0  # seconds that the rest of a range takes
_WORTH_OVERTAKING = 2.0  # seconds: the least that is saved, and the least age of the stream
_TIMES_FASTER = 4  # than the stream, for a mirror that overtakes it


class ChunkScheduler:
    """Thread-safe; `changed` is notified when there may be new work."""

    def __init__(self, source: Source, *, chunk_map: ChunkMap, context: Context, deadline: Deadline) -> None:
        self.changed = Condition()
        self.tracker = ChunkTracker(chunk_map=chunk_map)
        self.mirrors = Mirrors(source, context)
        self.attempts = Attempts(
            source=source, mirrors=self.mirrors, events=context.events, deadline=deadline, here=lambda: self.here
        )
        self.streams = 0  # running
        self.here = 0  # bytes that need not be fetched again
        self.last_error: FetchError | None = None
        self._name = source.name
        self._map = chunk_map
        self._active: list[Assignment] = []
        self._budget = context.streams
        self._events = context.events
        self._clock = context.clock
        self._deadline = deadline
        self._policy = source.retry
        self._wrong: set[int] = set()  # chunks that were wrong, until they are right
        self._one_origin: set[int] = set()  # those of them whose wrong bytes came from several mirrors
        self._farthest = 0  # most bytes present when an attempt failed: only more is progress
        self._reported = 0.0  # on the clock: the last progress report
        self._is_resuming = False

    def next_assignment(self) -> Assignment | None:
        """Work for one more stream; None if there is none now. Call `finish` for it at the end."""
        with self.changed:
            if self.here > self._farthest and self.attempts.is_exhausted():
                self._farthest = self.here
                self.attempts.progressed()  # bytes have come since the last failure
            if self.attempts.is_exhausted():
                return None
            now = self._clock.now()
            for mirror in self.mirrors.ready(without=self._useless()):
                if chunk_range := self._reserve(mirror, now):
                    mirror.streams += 1
                    mirror.ask()
                    self.streams += 1
                    self.attempts.number = self.attempts.number or 1
                    self.attempts.last_mirror = mirror
                    length = chunk_range.partial.length if chunk_range.partial else 0
                    assignment = Assignment(mirror=mirror, range=chunk_range, partial_length=length)
                    self._active.append(assignment)
                    return assignment
                self._overtake(mirror, now)
            return None

    def next_mirror(self) -> Mirror | None:
        """The mirror to ask next, now or later; None if none is left."""
        with self.changed:
            return self.mirrors.next(prefer_ranges=True, without=self._useless())

    def _useless(self) -> Sequence[Mirror]:
        """The mirrors that must not be asked for any of the missing chunks."""
        if not self.tracker.first_missing():
            return ()
        excluded = self.mirrors.excluded_chunks
        return [one for one in self.mirrors.all if not self.tracker.first_missing(without=excluded(one))]

    def _reserve(self, mirror: Mirror, now: float) -> ChunkRange | None:
        excluded = self.mirrors.excluded_chunks(mirror)
        if missing := self.tracker.first_missing(without=excluded):
            first, end = missing
            if mirror.ranges:
                share = -(-self.tracker.missing() // (1 + self._budget.free))
                end = min(end, first + share)
            found = self.tracker.reserve(first, end, now=now)
            if found.partial and first in self._one_origin and found.partial.origins != {mirror.url}:
                self.here -= found.partial.length
                found.partial = None
                found.position = found.filled_to = self._map.start(first)
            return found
        if excluded or not mirror.ranges:
            return None
        return self._split_slowest(now)

    def _split_slowest(self, now: float) -> ChunkRange | None:
        """Split the slowest remaining range, if it takes long enough."""
        active = [one.range for one in self._active]
        left = {one: one.seconds_left(self._bytes_left(one), now=now) for one in active}
        slow = [one for one in active if min(now - one.since, left[one]) >= _WORTH_SPLITTING]
        halves = (self.tracker.split(one, now=now) for one in sorted(slow, key=lambda one: left[one], reverse=True))
        return next((half for half in halves if half), None)

    def _overtake(self, mirror: Mirror, now: float) -> None:
        """End the streams of other mirrors that the idle `mirror` would finish much sooner."""
        excluded = self.mirrors.excluded_chunks(mirror)
        for one in self._active:
            is_other = one.mirror is not mirror and self._map.at(one.range.position) not in excluded
            if not is_other or not mirror.rate or now - one.range.since < _WORTH_OVERTAKING:
                continue
            left = self._bytes_left(one.range)
            if one.range.seconds_left(left, now=now) >= _TIMES_FASTER * left / mirror.rate + _WORTH_OVERTAKING:
                one.overtaken = OvertakenError(f"too slow: {left} bytes are left, and {redact(mirror.url)} is faster")

    def _bytes_left(self, chunk_range: ChunkRange) -> int:
        return self._map.start(chunk_range.end) - chunk_range.position

    def resume_chunk(self, index: int, partial: PartialChunk | None) -> None:
        """Record what an earlier run left: a verified chunk, or its beginning, `partial`."""
        with self.changed:
            if partial:
                self.tracker.keep_partial(index, partial)
                self.here += partial.length
            else:
                self.tracker.mark_verified(index)
                self.here += self._map.start(index + 1) - self._map.start(index)
            self.attempts.resumed_from = self._farthest = self.here

    def check_total(self, assignment: Assignment, total: int, *, remark: str) -> None:
        """Raise IntegrityError if the mirror's file has another size, which counts as the range's first chunk does."""
        mirror, key = assignment.mirror, -1 - self._map.at(assignment.range.position)  # apart from the chunk itself
        try:
            check_size(total, expected=self._map.size, remark=remark)
            mirror.wrong.pop(key, None)
        except IntegrityError as error:
            with self.changed:
                self.mirrors.wrong_chunk(mirror, key, error, is_first=True)
                mirror.not_before = self._clock.now() + pause(error, failures=1, policy=self._policy)
            raise

    def answered(self, assignment: Assignment, *, total: int | None, is_ranged: bool) -> None:
        """Record a correct answer: exactly the requested bytes follow, or if not `is_ranged`, everything."""
        with self.changed:
            assignment.mirror.has_answered = True
            assignment.is_ranged = is_ranged
            self.attempts.last_mirror = assignment.mirror
            is_first = self.attempts.received == 0
            is_resuming = self._is_resuming or (is_first and self.attempts.resumed_from > 0)
            self._is_resuming = False
            here = self.here
        url = redact(assignment.mirror.url)
        if not is_first:
            self._events.progress(self._name, received=here, total=self._map.size)
        self._events.started(self._name, url=url, offset=here, total=total or self._map.size)
        if is_resuming and here:
            self._events.resumed(self._name, url=url, offset=here)

    def extend(self, assignment: Assignment) -> bool:
        """Assign the next missing chunks of a body that has everything; False if there are none.

        Chunks that are already present are read again on the way only if no mirror is known to have ranges.
        """
        with self.changed:
            done, mirror, now = assignment.range, assignment.mirror, self._clock.now()
            missing = self.tracker.first_missing(start=done.end, without=self.mirrors.excluded_chunks(mirror))
            if missing is None:
                return False
            has_gap = missing[0] > done.end
            if has_gap and (mirror.ranges or self.mirrors.another_may_resume(mirror)):
                return False
            self.tracker.release(done)
            assignment.range = self.tracker.reserve(*missing, now=now)
            return True

    def skipped(self, count: int) -> None:
        """Count `count` received bytes that were not needed."""
        with self.changed:
            self.attempts.received += count

    def begin_fill(self, assignment: Assignment, most: int) -> int:
        """How many bytes, up to `most`, the stream may receive next; 0 at the end of its range, or after a wrong chunk.

        Never beyond the current chunk: nothing is read after a wrong one.
        """
        with self.changed:
            if assignment.failure:
                return 0
            current = assignment.range
            end = self._map.start(min(self._map.at(current.position) + 1, current.end))
            current.filled_to = min(current.position + most, end)
            return current.filled_to - current.position

    def written(self, assignment: Assignment, count: int) -> None:
        """Record that `count` bytes were written at the range's position."""
        now = self._clock.now()
        with self.changed:
            assignment.range.advance(count, now=now)
            self._deadline.progressed(now)
            self.attempts.received += count
            self.here += count
            assignment.mirror.has_delivered = True
            here, is_due = self.here, now - self._reported >= PROGRESS_EVERY
            if is_due:
                self._reported = now
        if is_due:
            self._events.progress(self._name, received=here, total=self._map.size)

    def chunk_received(self, assignment: Assignment, index: int, digest: bytes, origins: frozenset[str]) -> None:
        """Record that all bytes of a chunk have arrived, from `origins`; `digest` decides whether it is right."""
        mirror, url = assignment.mirror, redact(assignment.mirror.url)
        if not self._map.is_right(index, digest):
            error = self._reject(assignment, index, digest=digest, origins=origins)
            self._events.chunk_wrong(self._name, url=url, error=str(error))
            return
        with self.changed:
            self.tracker.mark_verified(index)
            self.attempts.progressed()
            mirror.right += 1
            assignment.progressed = True
            mirror.failures = 0
            mirror.unranged = 0 if assignment.is_ranged else mirror.unranged
            self.attempts.last_mirror = mirror
            was_wrong = index in self._wrong
            self._wrong.discard(index)
            self._one_origin.discard(index)
            self.changed.notify_all()
        if was_wrong:
            self._events.chunk_mended(self._name, url=url, chunk=index)

    def _reject(self, assignment: Assignment, index: int, *, digest: bytes, origins: frozenset[str]) -> IntegrityError:
        """Discard a wrong chunk, and end the stream: its other chunks may be wrong for the same reason."""
        start, end = self._map.start(index), self._map.start(index + 1)
        expected, found = self._map.expected(index).hex(), digest.hex()
        error = IntegrityError(
            f"wrong bytes from {start} to {end - 1}: chunk {index} has the sha256 {found[:16]}…, not {expected[:16]}…",
            expected=f"sha256:{expected}",
            found=f"sha256:{found}",
        )
        with self.changed:
            self.tracker.mark_missing(index)
            self._drop(end - start)
            self._wrong.add(index)
            self.attempts.number += not assignment.failure
            assignment.failure = assignment.failure or error
            if origins == {assignment.mirror.url}:
                self.mirrors.wrong_chunk(assignment.mirror, index, error, is_first=not assignment.had_wrong_chunk)
                assignment.had_wrong_chunk = True
            else:
                self._one_origin.add(index)
            self.changed.notify_all()
        return error

    def _drop(self, count: int) -> None:
        """Discard `count` wrong bytes, or bytes after wrong ones: fetching them again counts as progress."""
        self.here -= count
        self._farthest = min(self._farthest, self.here)

    def finish(self, assignment: Assignment, error: FetchError | None) -> None:
        """Record that the assignment's stream has ended, by `error` or at the end of its range."""
        with self.changed:
            partial = assignment.range.partial
            if partial and assignment.failure:  # it comes after a wrong chunk
                self._drop(partial.length)
                partial = assignment.range.partial = None
            assignment.progressed |= partial is not None and partial.length > assignment.partial_length
            self.tracker.release(assignment.range)
            self._active.remove(assignment)
            assignment.mirror.bytes += assignment.range.received
            assignment.mirror.seconds += self._clock.now() - assignment.range.since
            assignment.mirror.streams -= 1
            self.streams -= 1
            self.changed.notify_all()
        if error and not is_final(error):
            self._record_failure(assignment, error)

    def _record_failure(self, assignment: Assignment, error: FetchError) -> None:
        mirror, attempts = assignment.mirror, self.attempts
        with self.changed:
            self._is_resuming = True
            self.last_error = error
            progressed = assignment.progressed or self.here > self._farthest
            self._farthest = max(self._farthest, self.here)
            is_blamed = isinstance(error, IntegrityError)
            attempts.failed(mirror, error, progressed=progressed, by_mirror=assignment.progressed, blamed=is_blamed)
            if error is assignment.failure:  # a wrong chunk: counted and reported when it came
                return
            following = self.mirrors.next(prefer_ranges=True)
            if following and (self.streams or not attempts.is_exhausted()):
                wait = max(0.0, following.not_before - self._clock.now())
                attempts.report_retry(error, following, wait, mirror=mirror)
            attempts.number += 1
