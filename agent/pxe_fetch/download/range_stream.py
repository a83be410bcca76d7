"""One stream of a chunked download: request a range, write it to its place, and hash it chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from pxe_fetch.deadline import Deadline, StopWhen
from pxe_fetch.download.copy import BUFFER, LONG_BODY, WRITE_EVERY, HashPipeline, MinimumRate
from pxe_fetch.download.partfile import ChunkedPart
from pxe_fetch.download.retry import unforeseen
from pxe_fetch.download.scheduler import Assignment, ChunkScheduler
from pxe_fetch.download.verify import ChunkDigester, check_size, noted
from pxe_fetch.errors import FetchError, NetworkError, RangeError, StoppedError
from pxe_fetch.plan import Source
from pxe_fetch.transport import Body, Request, Transports


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeStream:
    """Carries out assignments. Thread-safe."""

    source: Source
    scheduler: ChunkScheduler
    part: ChunkedPart
    transports: Transports
    deadline: Deadline
    on_answer: Callable[[], object]  # called when a mirror has answered, so it may get more streams
    processors: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def carry_out(self, assignment: Assignment) -> FetchError | None:
        """Download the assignment's range; returns the error that ended it early, or None."""
        error: FetchError | None = None
        try:
            self._fetch(assignment)
        except StoppedError as caught:
            error = assignment.overtaken or caught
        except FetchError as caught:
            error = caught
        except Exception as caught:  # a bug triggered by this mirror's answer: try another mirror
            error = unforeseen(caught)
        self.scheduler.finish(assignment, error)
        return error

    def _fetch(self, assignment: Assignment) -> None:
        stop = StopWhen(lambda: assignment.overtaken is not None, stop=self.deadline.stop)
        deadline = replace(self.deadline, stop=stop)
        deadline.check()
        mirror, wanted, chunk_map = assignment.mirror, assignment.range, self.part.chunk_map
        asks_range = mirror.ranges
        request = Request(
            url=mirror.url,
            offset=wanted.position if asks_range else 0,
            # No If-Range: each chunk's digest reveals whether the server's file has changed.
            end=chunk_map.start(wanted.end) if asks_range else None,
            headers=self.source.headers,
            timeouts=self.source.timeouts,
            deadline=deadline,
        )
        body = self.transports.of(mirror.url).open(request)
        try:
            if body.total is not None:
                check_size(body.total, expected=chunk_map.size, remark=body.remark)
            if body.start != request.offset:
                raise RangeError(f"bytes from {body.start} on, when those from {request.offset} were asked for")
            # A full answer to a range that covers everything says nothing about range support.
            asks_all = request.offset == 0 and request.end == chunk_map.size
            if asks_range and not body.ranged and not asks_all:
                self.scheduler.ignored_range(assignment)
            has_all = not asks_range or not body.ranged
            self.scheduler.answered(assignment, total=body.total, is_ranged=not has_all and not asks_all)
            self.on_answer()
            self._copy(assignment, body, deadline, has_all=has_all)
        finally:
            body.close()

    def _copy(self, assignment: Assignment, body: Body, deadline: Deadline, *, has_all: bool) -> None:
        """Write the range; if the body has all bytes, also the missing chunks after it."""
        rate = MinimumRate(self.source.timeouts, deadline=deadline, sharers=lambda: max(1, self.scheduler.streams))
        position = body.start
        while True:
            self._skip(body, assignment.range.position - position, rate)
            self._fill(assignment, body, rate)
            position = assignment.range.position
            if not has_all or not self.scheduler.extend(assignment):
                return

    def _skip(self, body: Body, count: int, rate: MinimumRate) -> None:
        """Read and discard `count` bytes that are not needed, from a mirror without ranges."""
        view = memoryview(bytearray(min(count, BUFFER)))
        while count:
            got = body.readinto(view[:count])
            if not got:
                raise self._ended(body, f"{count} bytes before the missing bytes")
            rate.check(got)
            self.scheduler.skipped(got)
            count -= got

    def _ended(self, body: Body, when: str) -> NetworkError:
        """The error for a body that ended too soon. Raises IntegrityError if it was complete: of another size."""
        if body.total is not None:
            check_size(body.total, expected=self.part.chunk_map.size, remark=body.remark)
        return NetworkError(f"the body ended {when}{noted(body.remark)}")

    def _fill(self, assignment: Assignment, body: Body, rate: MinimumRate) -> None:
        """Write the body to the range, up to the range's end."""
        digester = ChunkDigester(
            self.part.chunk_map,
            position=assignment.range.position,
            partial=assignment.range.partial,
            origin=assignment.mirror.url,
            on_chunk=partial(self.scheduler.chunk_received, assignment),
        )
        pipeline = HashPipeline(digester)
        try:
            while most := self.scheduler.begin_fill(assignment, BUFFER):
                self._fill_buffer(assignment, body, rate, pipeline, most)
        finally:
            pipeline.close()
            assignment.range.partial = digester.partial()
        if assignment.failure:
            raise assignment.failure

    def _fill_buffer(
        self, assignment: Assignment, body: Body, rate: MinimumRate, pipeline: HashPipeline, most: int
    ) -> None:
        buffer, filled = pipeline.buffer(), 0
        until = self.deadline.clock.now() + WRITE_EVERY
        try:
            while filled < most:
                if assignment.failure:
                    raise assignment.failure
                count = body.readinto(buffer[filled:most])
                if not count:
                    end = self.part.chunk_map.start(assignment.range.end)
                    raise self._ended(body, f"{end - assignment.range.position - filled} bytes early")
                filled += count
                if rate.check(count) >= until:
                    break
        finally:
            if filled:
                # Write before hashing: once a chunk is known to be wrong, another stream may write it.
                self.part.write(buffer[:filled], at=assignment.range.position)
                has_processor = self.scheduler.streams < self.processors
                pipeline.hash(buffer, filled, in_thread=has_processor and assignment.range.received > LONG_BODY)
                self.scheduler.written(assignment, filled)
