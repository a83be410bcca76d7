"""Decides which chunks a stream downloads next and from which mirror, and records the results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from threading import Condition

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.chunks import count
from pxe_fetch.contract.model import Digest
from pxe_fetch.contract.url import redact
from pxe_fetch.deadline import pause
from pxe_fetch.download.context import Context
from pxe_fetch.download.mirrors import Mirror
from pxe_fetch.download.partfile import check_size
from pxe_fetch.download.retry import Attempts
from pxe_fetch.download.stream import PartialChunk, Stream
from pxe_fetch.errors import FetchError, IntegrityError, OvertakenError, is_final
from pxe_fetch.plan import Source
from pxe_fetch.transport import Body

_WORTH_SPLITTING = 1.0  # seconds that the rest of a range takes
_WORTH_OVERTAKING = 2.0  # seconds: the least that is saved, and the least age of the stream
_TIMES_FASTER = 4  # than the stream, for a mirror that overtakes it


class ChunkScheduler:
    """Thread-safe; `changed` is notified when there may be new work."""

    def __init__(self, source: Source, *, chunk_map: ChunkMap, context: Context) -> None:
        self.changed = Condition()
        self.attempts = Attempts(source=source, context=context, here=lambda: self.here, choose=self._choose_mirror)
        self.mirrors = self.attempts.mirrors
        self.streams: list[Stream] = []  # running
        self.remaining = chunk_map.number  # chunks that are not verified yet
        self.here = 0  # bytes that need not be fetched again
        self._source = source
        self._map = chunk_map
        self._budget = context.streams
        self._events = context.events
        self._clock = context.clock
        self._verified = bytearray(chunk_map.number)  # 1 for each chunk that is
        self._partial: dict[int, PartialChunk] = {}  # of chunks that no stream downloads now
        self._wrong: set[int] = set()  # chunks that were wrong, until they are right
        self._farthest = 0  # most bytes present when an attempt failed: only more is progress
        self._is_resuming = False

    def next_stream(self) -> Stream | None:
        """Work for one more stream; None if there is none now. Call `finish` for it at the end."""
        with self.changed:
            if self.here > self._farthest and self.attempts.is_exhausted():
                self._farthest = self.here
                self.attempts.progressed()  # bytes have come since the last failure
            if self.attempts.is_exhausted():
                return None
            now = self._clock.now()
            for mirror in self.mirrors.ready(without=self._useless()):
                if stream := self._assign(mirror, now):
                    mirror.streams += 1
                    self.attempts.begin(mirror)
                    self.streams.append(stream)
                    return stream
                self._overtake(mirror, now)
            return None

    def is_verified(self, index: int) -> bool:
        """Whether the chunk has been received and verified."""
        return self._verified[index] > 0

    def _choose_mirror(self) -> Mirror | None:
        with self.changed:
            return self.mirrors.next(prefer_ranges=True, without=self._useless())

    def _useless(self) -> Sequence[Mirror]:
        """The mirrors that must not be asked for any of the missing chunks."""
        if not self._missing():
            return ()
        return [one for one in self.mirrors.all if not self._missing(without=self.mirrors.excluded_chunks(one))]

    def _missing(self, *, start: int = 0, without: Collection[int] = ()) -> tuple[int, int] | None:
        """The first run of missing chunks from `start` on: its first, and the one after it.

        They are not verified, no stream downloads them, and none is in `without`. Only the first may be partial.
        """
        first, taken = start, [range(self._map.at(one.hashed), one.end) for one in self.streams]
        while (first := self._verified.find(0, first)) >= 0:
            if stream := next((one for one in taken if first in one), None):
                first = stream.stop
            elif first in without:
                first += 1
            else:
                verified = self._verified.find(1, first)
                ends = [len(self._verified) if verified < 0 else verified, *(one.start for one in taken if one)]
                return first, min(end for end in (*ends, *without, *self._partial) if end > first)
        return None

    def _assign(self, mirror: Mirror, now: float) -> Stream | None:
        """Chunks for `mirror`: missing ones, or else some of the slowest stream's."""
        excluded = self.mirrors.excluded_chunks(mirror)
        if missing := self._missing(without=excluded):
            first, end = missing
            if mirror.ranges:
                not_taken = self.remaining - sum(one.end - self._map.at(one.hashed) for one in self.streams)
                end = min(end, first - (-not_taken // (1 + self._budget.free)))
            partial = self._partial.pop(first, None)
            if partial:
                origins, length = partial.origins, partial.length
                is_mixed_again = first in self._wrong and origins != {mirror.url}
                if is_mixed_again or not self.mirrors.may_continue(mirror, length=length, origins=origins):
                    self._drop(length)
                    partial = None
            position = self._map.start(first) + (partial.length if partial else 0)
            return Stream(mirror=mirror, position=position, end=end, partial=partial, since=now)
        return self._split_slowest(mirror, now) if mirror.ranges and not excluded else None

    def _split_slowest(self, mirror: Mirror, now: float) -> Stream | None:
        """The second half of what the slowest stream has not begun, if that takes long enough."""
        left = {one: one.seconds_for(self._bytes_left(one), now=now) for one in self.streams}
        for one in sorted(self.streams, key=left.__getitem__, reverse=True):
            middle = one.end - (one.end - count(one.filled_to, chunk=self._map.chunk) + 1) // 2
            if min(now - one.since, left[one]) >= _WORTH_SPLITTING and middle < one.end:
                end, one.end = one.end, middle
                return Stream(mirror=mirror, position=self._map.start(middle), end=end, partial=None, since=now)
        return None

    def may_leave(self, stream: Stream) -> bool:
        """Whether another request for what `stream`, which is slow, is receiving may be faster."""
        with self.changed:
            index = self._map.at(stream.position)
            useless = [one for one in self.mirrors.all if index in self.mirrors.excluded_chunks(one)]
            return self.mirrors.may_leave(stream.mirror, without=useless)

    def _overtake(self, mirror: Mirror, now: float) -> None:
        """End the streams of other mirrors that the idle `mirror` would finish much sooner."""
        excluded = self.mirrors.excluded_chunks(mirror)
        for one in self.streams:
            is_other = one.mirror is not mirror and self._map.at(one.position) not in excluded
            if not is_other or not mirror.rate or now - one.since < _WORTH_OVERTAKING:
                continue
            left = self._bytes_left(one)
            if one.seconds_for(left, now=now) >= _TIMES_FASTER * left / mirror.rate + _WORTH_OVERTAKING:
                one.overtaken = OvertakenError(f"too slow: {left} bytes are left, and {redact(mirror.url)} is faster")

    def _bytes_left(self, stream: Stream) -> int:
        return self._map.start(stream.end) - stream.position

    def resume_chunk(self, index: int, partial: PartialChunk | None) -> None:
        """Record what an earlier run left: a verified chunk, or its beginning, `partial`."""
        with self.changed:
            if partial:
                self._partial[index] = partial
                self.here += partial.length
            else:
                self._mark_verified(index)
                self.here += self._map.start(index + 1) - self._map.start(index)
            self.attempts.resumed_from = self._farthest = self.here

    def _mark_verified(self, index: int) -> None:
        self.remaining -= not self._verified[index]
        self._verified[index] = 1

    def check_total(self, stream: Stream, body: Body) -> None:
        """Raise IntegrityError if the mirror's file has another size, which counts as the range's first chunk does.

        A web page counts as a failed attempt alone.
        """
        mirror, key = stream.mirror, -1 - self._map.at(stream.position)  # apart from the chunk itself
        try:
            check_size(body.total, expected=self._map.size, remark=body.remark)
            mirror.wrong.pop(key, None)
        except IntegrityError as error:
            if not body.is_page:
                with self.changed:
                    self.mirrors.wrong_chunk(mirror, key, error, is_first=True)
                    mirror.not_before = self._clock.now() + pause(error, failures=1, policy=self._source.retry)
            raise

    def answered(self, stream: Stream, *, is_ranged: bool) -> None:
        """Record a correct answer: exactly the requested bytes follow, or if not `is_ranged`, everything."""
        with self.changed:
            stream.mirror.has_answered = True
            stream.mirror.has_sent_range |= is_ranged
            stream.is_ranged = is_ranged
            self.attempts.last_mirror = stream.mirror
            is_resuming = self._is_resuming or (self.attempts.received == 0 and self.attempts.resumed_from > 0)
            self._is_resuming = False
            here = self.here
        url, name = redact(stream.mirror.url), self._source.name
        self._events.started(name, url=url, offset=here, total=self._map.size)
        if is_resuming and here:
            self._events.resumed(name, url=url, offset=here)

    def extend(self, stream: Stream) -> bool:
        """Assign the next missing chunks of a body that has everything; False if there are none.

        Chunks that are already present are read again on the way only if no mirror is known to have ranges.
        """
        with self.changed:
            mirror = stream.mirror
            if self._is_earlier_tier_ready(mirror):
                return False
            missing = self._missing(start=stream.end, without=self.mirrors.excluded_chunks(mirror))
            if missing is None:
                return False
            if missing[0] > stream.end and (mirror.ranges or self.mirrors.another_may_resume(mirror)):
                return False
            first, stream.end = missing
            stream.partial = self._partial.pop(first, None)
            start = self._map.start(first) + (stream.partial.length if stream.partial else 0)
            stream.position = stream.hashed = stream.filled_to = start
            return True

    def _is_earlier_tier_ready(self, mirror: Mirror) -> bool:
        """Whether a mirror of a tier before that of `mirror` would get a stream now, so that its own are to end."""
        first = next(self.mirrors.ready(without=self._useless()), mirror) if mirror.tier else mirror
        return first.tier < mirror.tier

    def skipped(self, count: int) -> None:
        """Count `count` received bytes that were not needed."""
        with self.changed:
            self.attempts.received += count

    def begin_fill(self, stream: Stream, most: int) -> int:
        """How many bytes, up to `most`, the stream may receive next; 0 at the end of its range, or after a wrong chunk.

        Never beyond the current chunk: nothing is read after a wrong one.
        """
        with self.changed:
            if stream.failure:
                return 0
            index = self._map.at(stream.position)
            if (
                stream.received
                and stream.position == self._map.start(index)
                and self._is_earlier_tier_ready(stream.mirror)
            ):
                stream.end = index
            end = self._map.start(min(self._map.at(stream.position) + 1, stream.end))
            stream.filled_to = min(stream.position + most, end)
            return stream.filled_to - stream.position

    def written(self, stream: Stream, count: int) -> None:
        """Record that `count` bytes were written at the stream's position."""
        now = self._clock.now()
        with self.changed:
            stream.advance(count, now=now)
            self.attempts.deadline.progressed(now)
            self.attempts.received += count
            self.here += count
            stream.mirror.has_delivered = True
            self._events.progress(self._source.name, received=self.here, total=self._map.size)

    def hash(self, stream: Stream, data: memoryview) -> None:
        """Hash `data`, which follows what was hashed of the stream before, and judge each chunk that is complete."""
        while data:
            index = self._map.at(stream.hashed)
            end = self._map.start(index + 1)
            here, data = data[: end - stream.hashed], data[end - stream.hashed :]
            chunk = stream.partial or PartialChunk()
            chunk.digester.update(here)
            chunk.length += len(here)
            chunk.origins |= {stream.mirror.url}
            if stream.hashed + len(here) < end:
                stream.partial = chunk
                stream.hashed += len(here)
            else:
                self._judge(stream, index, chunk)

    def _judge(self, stream: Stream, index: int, chunk: PartialChunk) -> None:
        """Record that all bytes of a chunk have arrived; its digest decides whether it is right."""
        mirror, url, found = stream.mirror, redact(stream.mirror.url), chunk.digester.digest()
        is_right = found.hex == self._map.expected(index).hex()
        with self.changed:
            stream.hashed, stream.partial = self._map.start(index + 1), None
            was_wrong = index in self._wrong
            if is_right:
                self._mark_verified(index)
                self._wrong.discard(index)
                self.attempts.progressed()
                self.attempts.last_mirror = mirror
                mirror.right += 1
                mirror.failures = 0
                mirror.unranged = 0 if stream.is_ranged else mirror.unranged
                stream.progressed = True
            else:
                error = self._reject(stream, index, found=found, is_all_own=chunk.origins == {mirror.url})
            self.changed.notify_all()
        if not is_right:
            self._events.chunk_wrong(self._source.name, url=url, error=str(error))
        elif was_wrong:
            self._events.chunk_mended(self._source.name, url=url, chunk=index)

    def _reject(self, stream: Stream, index: int, *, found: Digest, is_all_own: bool) -> IntegrityError:
        """Discard a wrong chunk, and end the stream: its other chunks may be wrong for the same reason."""
        start, end = self._map.start(index), self._map.start(index + 1)
        expected = found._replace(hex=self._map.expected(index).hex())
        what = f"chunk {index} has the sha256 {found.hex[:16]}…, not {expected.hex[:16]}…"
        message = f"wrong bytes from {start} to {end - 1}: {what}"
        error = IntegrityError(message, expected=str(expected), found=str(found))
        self._drop(end - start)
        self._wrong.add(index)
        stream.failure = stream.failure or error
        if is_all_own:
            self.mirrors.wrong_chunk(stream.mirror, index, error, is_first=not stream.had_wrong_chunk)
            stream.had_wrong_chunk = True
        return error

    def _drop(self, count: int) -> None:
        """Discard `count` wrong bytes, or bytes after wrong ones: fetching them again counts as progress."""
        self.here -= count
        self._farthest = min(self._farthest, self.here)

    def finish(self, stream: Stream, error: FetchError | None) -> None:
        """Record that the stream has ended, by `error` or at the end of its range."""
        with self.changed:
            mirror, partial = stream.mirror, stream.partial
            # It comes after a wrong chunk, or is of a file of another size.
            is_wrong = bool(stream.failure) or (stream.received > 0 and isinstance(error, IntegrityError))
            if partial and is_wrong:
                self._drop(partial.length)
            elif partial and partial.length:
                self._partial[self._map.at(stream.hashed)] = partial
            stream.progressed |= stream.received > 0 and not is_wrong
            self.streams.remove(stream)
            mirror.bytes += stream.received
            mirror.seconds += self._clock.now() - stream.since
            mirror.streams -= 1
            if error and not is_final(error):
                self._is_resuming = True
                progressed = stream.progressed or self.here > self._farthest
                self._farthest = max(self._farthest, self.here)
                if error is stream.failure:  # a wrong chunk: its mirror was judged when it came
                    self.attempts.count(mirror, error, progressed=progressed)
                else:
                    self.attempts.failed(
                        mirror,
                        error,
                        progressed=progressed,
                        by_mirror=stream.progressed,
                        blamed=True,
                        others_run=bool(self.streams),
                    )
            self.changed.notify_all()
