"""Download an artifact with chunk digests: ranges in parallel, with as many streams as the run has free."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import partial
from threading import Thread

from pxe_fetch.deadline import Deadline, StopWhen
from pxe_fetch.download.chunk_tracker import Assignment, ChunkDigester, PartialChunk
from pxe_fetch.download.context import Context
from pxe_fetch.download.copy import BUFFER, MinimumRate, copy_body
from pxe_fetch.download.partfile import ChunkedPart, Digester, check_size, noted
from pxe_fetch.download.retry import is_final, unforeseen
from pxe_fetch.download.scheduler import ChunkScheduler
from pxe_fetch.errors import FetchError, NetworkError, RangeError, StoppedError
from pxe_fetch.plan import Source
from pxe_fetch.transport import Body, Request

_EARLIER_RUN = frozenset(("an earlier run",))
_POLL = 0.25  # seconds between two attempts to start another stream
_STOP_GRACE = 1.0  # seconds for the streams to end


class ChunkedDownload:
    """The calling thread starts one thread per stream and waits; each stream takes assignment after assignment."""

    def __init__(self, source: Source, *, part: ChunkedPart, context: Context) -> None:
        self._source = source
        self._part = part
        self._events = context.events
        self._context = context
        self._processors = len(os.sched_getaffinity(0))
        self._deadline = context.deadline(source.retry.deadline)
        self._scheduler = ChunkScheduler(source, chunk_map=part.chunk_map, context=context, deadline=self._deadline)
        self.attempts, tracker = self._scheduler.attempts, self._scheduler.tracker
        self._stop = StopWhen(lambda: not tracker.remaining, stop=context.stop)
        self._fatal: FetchError | None = None
        self._threads = 0  # one is the artifact's own, the others come from the run's budget

    def _resume(self) -> None:
        """Start from the chunks that an earlier run left, if they are right."""
        self._events.verifying(self._source.name, total=self._part.resumable)
        scheduler, chunk_map = self._scheduler, self._part.chunk_map

        def on_chunk(index: int, is_right: bool) -> bool:  # noqa: FBT001  a value
            if is_right:
                scheduler.resume_chunk(index, None)
            return True

        for index, length in self._part.rehash(on_chunk=on_chunk, check=self._deadline.check):
            if not scheduler.tracker.is_verified(index):
                digest, start = hashlib.sha256(), chunk_map.start(index)
                self._part.read_into(digest.update, start=start, end=start + length)
                scheduler.resume_chunk(index, PartialChunk(length=length, hash=digest, origins=_EARLIER_RUN))

    def run(self) -> None:
        """Download until the part is complete and verified. Raises FetchError as download.download does."""
        if self._part.resumable:
            self._resume()
        try:
            self.attempts.run(self._attempt, next_mirror=self._scheduler.next_mirror)
        finally:
            self._stop.set()
            self._await_threads()
            if self.attempts.number:
                self._events.progress(self._source.name, received=self._scheduler.here, total=self._part.chunk_map.size)
        self._verify()

    def _attempt(self) -> None:
        """Run streams until every chunk is verified. Raises the last error once no mirror can be asked now."""
        scheduler = self._scheduler
        while scheduler.tracker.remaining:
            self._deadline.check()
            with scheduler.changed:
                assignment = self._start_streams()
                if self._fatal and scheduler.tracker.remaining:
                    raise self._fatal
                if not assignment and (self._threads or scheduler.mirrors.is_waiting()):
                    if not self._threads:  # its host serves other artifacts
                        self._deadline.progressed(self._context.clock.now())
                    scheduler.changed.wait(_POLL)
                    continue
            if assignment:
                self._run_stream(assignment)
            elif scheduler.tracker.remaining:
                raise scheduler.last_error or scheduler.mirrors.verdict()

    def _start_streams(self) -> Assignment | None:
        """Start as many streams as the budget and the work allow, each in a thread.

        Returns an assignment that the calling thread has to carry out, if no thread can be started.
        """
        with self._scheduler.changed:
            while not self._stop.is_set() and (not self._threads or self._context.streams.take()):
                assignment = self._scheduler.next_assignment()
                self._threads += 1
                if assignment:
                    name = f"{self._source.name}-{self._threads}"
                    thread = Thread(target=self._run_stream, args=(assignment,), name=name, daemon=True)
                    try:
                        thread.start()
                        continue
                    except RuntimeError:  # the unit's TasksMax= is reached: the running threads do the rest
                        if self._threads == 1:
                            return assignment
                        self._scheduler.finish(assignment, None)
                self._end_stream()
                break
        return None

    def _run_stream(self, assignment: Assignment) -> None:
        try:
            self._work(assignment)
        finally:
            self._end_stream()

    def _end_stream(self) -> None:
        with self._scheduler.changed:
            self._threads -= 1
            if self._threads:  # the last one is the artifact's own
                self._context.streams.give()
            self._scheduler.changed.notify_all()

    def _work(self, assignment: Assignment | None) -> None:
        """Carry out `assignment`, and further ones until there are none."""
        while assignment:
            error: FetchError | None = None
            try:
                self._fetch(assignment)
            except StoppedError as caught:
                error = assignment.overtaken or caught
            except FetchError as caught:
                error = caught
            except Exception as caught:  # a bug triggered by this mirror's answer: try another mirror
                error = unforeseen(caught)
            self._scheduler.finish(assignment, error)
            if error and is_final(error) and self._scheduler.tracker.remaining:
                self._fatal = self._fatal or error
                self._stop.set()
            assignment = None if self._stop.is_set() else self._scheduler.next_assignment()

    def _fetch(self, assignment: Assignment) -> None:
        stop = StopWhen(lambda: assignment.overtaken is not None, stop=self._stop)
        deadline = replace(self._deadline, stop=stop)
        deadline.check()
        mirror, wanted, chunk_map = assignment.mirror, assignment.range, self._part.chunk_map
        asks_range = mirror.ranges
        request = Request(
            url=mirror.url,
            offset=wanted.position if asks_range else 0,
            # No If-Range: each chunk's digest reveals whether the server's file has changed.
            end=chunk_map.start(wanted.end) if asks_range else None,
            headers=self._source.headers,
            timeouts=self._scheduler.mirrors.timeouts(mirror),
            deadline=deadline,
        )
        with mirror.answer(request, self._context) as body:
            if body.total is not None:
                self._scheduler.check_total(assignment, body.total, remark=body.remark)
            if body.start != request.offset:
                raise RangeError(f"bytes from {body.start} on, when those from {request.offset} were asked for")
            # A full answer to a range that covers everything says nothing about range support.
            asks_all = request.offset == 0 and request.end == chunk_map.size
            if asks_range and not body.ranged and not asks_all:
                mirror.ignored_range()
            has_all = not asks_range or not body.ranged
            self._scheduler.answered(assignment, total=body.total, is_ranged=not has_all and not asks_all)
            self._start_streams()
            self._copy(assignment, body, deadline, has_all=has_all)

    def _copy(self, assignment: Assignment, body: Body, deadline: Deadline, *, has_all: bool) -> None:
        """Write the range; if the body has all bytes, also the missing chunks after it."""
        rate = MinimumRate(
            timeouts=self._source.timeouts,
            deadline=deadline,
            may_leave=lambda: self._scheduler.mirrors.may_leave(assignment.mirror),
            sharers=lambda: max(1, self._scheduler.streams),
        )
        position = body.start
        while True:
            self._skip(body, assignment.range.position - position, rate)
            self._fill(assignment, body, rate)
            position = assignment.range.position
            if not has_all or not self._scheduler.extend(assignment):
                return

    def _skip(self, body: Body, left: int, rate: MinimumRate) -> None:
        """Read and discard `left` bytes that are not needed, from a mirror without ranges."""

        def discard(data: memoryview) -> None:
            nonlocal left
            left -= len(data)
            self._scheduler.skipped(len(data))

        copy_body(body, wanted=lambda: min(left, BUFFER), check=rate.check, write=discard, update=lambda _: None)
        if left:
            raise self._ended(body, f"{left} bytes before the missing bytes")

    def _ended(self, body: Body, when: str) -> NetworkError:
        """The error for a body that ended too soon. Raises IntegrityError if it was complete: of another size."""
        if body.total is not None:
            check_size(body.total, expected=self._part.chunk_map.size, remark=body.remark)
        return NetworkError(f"the body ended {when}{noted(body.remark)}")

    def _fill(self, assignment: Assignment, body: Body, rate: MinimumRate) -> None:
        """Write the body to the range, up to the range's end, or the end of a wrong chunk."""
        digester = ChunkDigester(
            chunk_map=self._part.chunk_map,
            position=assignment.range.position,
            chunk=assignment.range.partial,
            origin=assignment.mirror.url,
            on_chunk=partial(self._scheduler.chunk_received, assignment),
        )

        def check(count: int) -> float:
            if assignment.failure:
                raise assignment.failure
            return rate.check(count)

        def write(data: memoryview) -> None:
            self._part.write_at(data, assignment.range.position)
            self._scheduler.written(assignment, len(data))

        try:
            copy_body(
                body,
                wanted=lambda: self._scheduler.begin_fill(assignment, BUFFER),
                check=check,
                write=write,
                update=digester.update,
                may_thread=lambda: self._scheduler.streams < self._processors,
            )
        finally:
            assignment.range.partial = digester.chunk
        if assignment.failure:
            raise assignment.failure
        if left := self._part.chunk_map.start(assignment.range.end) - assignment.range.position:
            raise self._ended(body, f"{left} bytes early")

    def _await_threads(self) -> None:
        """Wait for the streams to end; a file that one may still write to stays open."""
        with self._scheduler.changed:
            if not self._scheduler.changed.wait_for(lambda: not self._threads, timeout=_STOP_GRACE):
                self._part.keep_open()

    def _verify(self) -> None:
        """After all chunks are verified, check the digest of the whole, if there is one too."""
        chunk_map = self._part.chunk_map
        text = f"sha256 of each of its {chunk_map.number} chunks" if chunk_map.number > 1 else "sha256 of its one chunk"
        if self._source.digest:
            digester = Digester(self._source.digest)

            def take(data: memoryview) -> None:
                self._deadline.check()
                digester.update(data)

            self._part.read_into(take, start=0, end=chunk_map.size)
            digester.check(remark="every chunk is right, so the configuration contradicts itself")
            text = str(self._source.digest)
        self._events.verified(self._source.name, digest=text, total=chunk_map.size)
