"""Download an artifact with chunk digests: ranges in parallel, with as many streams as the run has free."""

from __future__ import annotations

import os
from dataclasses import replace
from threading import Thread

from pxe_fetch.deadline import StopWhen
from pxe_fetch.download.context import Context
from pxe_fetch.download.copy import BUFFER, MinimumRate, copy_body
from pxe_fetch.download.partfile import ChunkedPart, Digester, check_size, noted
from pxe_fetch.download.retry import Attempts
from pxe_fetch.download.scheduler import ChunkScheduler
from pxe_fetch.download.stream import PartialChunk, Stream
from pxe_fetch.errors import FetchError, NetworkError, RangeError, StoppedError, is_final, unforeseen
from pxe_fetch.plan import Source
from pxe_fetch.transport import Body, Request

_EARLIER_RUN = frozenset(("an earlier run",))
_POLL = 0.25  # seconds between two attempts to start another stream
_STOP_GRACE = 1.0  # seconds for the streams to end


class ChunkedDownload:
    """The calling thread starts threads and waits; each of them runs stream after stream."""

    def __init__(self, source: Source, *, part: ChunkedPart, context: Context) -> None:
        self._source = source
        self._part = part
        self._events = context.events
        self._context = context
        self._processors = len(os.sched_getaffinity(0))
        self._scheduler = scheduler = ChunkScheduler(source, chunk_map=part.chunk_map, context=context)
        self.attempts, self._deadline = scheduler.attempts, scheduler.attempts.deadline
        self._stop = StopWhen(lambda: not scheduler.remaining, stop=context.stop)
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
            if not scheduler.is_verified(index):
                partial, start = PartialChunk(length=length, origins=_EARLIER_RUN), chunk_map.start(index)
                self._part.read_into(partial.digester.update, start=start, end=start + length)
                scheduler.resume_chunk(index, partial)

    def run(self) -> Attempts:
        """Download until the part is complete and verified. Raises FetchError as fetcher.download does."""
        return self.attempts.complete(self._download)

    def _download(self) -> None:
        if self._part.resumable:
            self._resume()
        try:
            self.attempts.run(self._attempt)
        finally:
            self._stop.set()
            self._await_threads()
            if self.attempts.number:
                self._events.progress(self._source.name, received=self._scheduler.here, total=self._part.chunk_map.size)
        self._verify()

    def _attempt(self) -> None:
        """Run streams until every chunk is verified. Raises the last error once no mirror can be asked now."""
        scheduler = self._scheduler
        while scheduler.remaining:
            self._deadline.check()
            with scheduler.changed:
                stream = self._start_streams()
                if self._fatal and scheduler.remaining:
                    raise self._fatal
                if not stream and (self._threads or scheduler.mirrors.is_waiting()):
                    if not self._threads:  # its host serves other artifacts
                        self._deadline.progressed(self._context.clock.now())
                    scheduler.changed.wait(_POLL)
                    continue
            if stream:
                self._run_streams(stream)
            elif scheduler.remaining:
                raise self.attempts.last_error or scheduler.mirrors.verdict()

    def _start_streams(self) -> Stream | None:
        """Start as many streams as the budget and the work allow, each in a thread.

        Returns one that the calling thread has to run, if no thread can be started.
        """
        with self._scheduler.changed:
            while not self._stop.is_set() and (not self._threads or self._context.streams.take()):
                stream = self._scheduler.next_stream()
                self._threads += 1
                if stream:
                    name = f"{self._source.name}-{self._threads}"
                    thread = Thread(target=self._run_streams, args=(stream,), name=name, daemon=True)
                    try:
                        thread.start()
                        continue
                    except RuntimeError:  # the unit's TasksMax= is reached: the running threads do the rest
                        if self._threads == 1:
                            return stream
                        self._scheduler.finish(stream, None)
                self._end_thread()
                break
        return None

    def _end_thread(self) -> None:
        with self._scheduler.changed:
            self._threads -= 1
            if self._threads:  # the last one is the artifact's own
                self._context.streams.give()
            self._scheduler.changed.notify_all()

    def _run_streams(self, stream: Stream | None) -> None:
        """Run `stream`, and further ones until there are none."""
        try:
            while stream:
                error: FetchError | None = None
                try:
                    self._fetch(stream)
                except FetchError as caught:
                    error = (isinstance(caught, StoppedError) and stream.overtaken) or caught
                except Exception as caught:  # a bug triggered by this mirror's answer: try another mirror
                    error = unforeseen(caught)
                self._scheduler.finish(stream, error)
                if error and is_final(error) and self._scheduler.remaining:
                    self._fatal = self._fatal or error
                    self._stop.set()
                stream = None if self._stop.is_set() else self._scheduler.next_stream()
        finally:
            self._end_thread()

    def _fetch(self, stream: Stream) -> None:
        stop = StopWhen(lambda: stream.overtaken is not None, stop=self._stop)
        deadline = replace(self._deadline, stop=stop)
        deadline.check()
        scheduler, mirror, chunk_map = self._scheduler, stream.mirror, self._part.chunk_map
        asks_range = mirror.ranges
        request = Request(
            url=mirror.url,
            offset=stream.position if asks_range else 0,
            # No If-Range: each chunk's digest reveals whether the server's file has changed.
            end=chunk_map.start(stream.end) if asks_range else None,
            headers=self._source.headers,
            login=self._source.login,
            credentials=self._source.credentials,
            timeouts=scheduler.mirrors.timeouts(mirror),
            deadline=deadline,
        )
        with mirror.answer(request, self._context) as body:
            if body.total is not None and body.is_exact:
                scheduler.check_total(stream, body)
            if body.start != request.offset:
                raise RangeError(f"bytes from {body.start} on, when those from {request.offset} were asked for")
            # A full answer to a range that covers everything says nothing about range support.
            asks_all = request.offset == 0 and request.end == chunk_map.size
            if asks_range and not body.ranged and not asks_all:
                mirror.ignored_range()
            has_all = not asks_range or not body.ranged
            mirror.has_odd_bytes = mirror.is_odd
            scheduler.answered(stream, is_ranged=not has_all and not asks_all)
            self._start_streams()
            rate = MinimumRate(
                timeouts=request.timeouts,
                deadline=deadline,
                may_leave=lambda: scheduler.may_leave(stream),
                on_fast=lambda: scheduler.mirrors.had_minimum_rate(mirror),
                sharers=lambda: max(1, len(scheduler.streams)),
            )
            self._copy(stream, body, rate, has_all=has_all)

    def _copy(self, stream: Stream, body: Body, rate: MinimumRate, *, has_all: bool) -> None:
        """Write the range; if the body has all bytes, also the missing chunks after it."""
        position = body.start
        while True:
            self._skip(body, stream.position - position, rate)
            self._fill(stream, body, rate)
            position = stream.position
            if not has_all or not self._scheduler.extend(stream):
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

    def _fill(self, stream: Stream, body: Body, rate: MinimumRate) -> None:
        """Write the body to the range, up to the range's end, or the end of a wrong chunk."""
        scheduler = self._scheduler

        def check(count: int) -> float:
            if stream.failure:
                raise stream.failure
            return rate.check(count)

        def write(data: memoryview) -> None:
            self._part.write_at(data, stream.position)
            scheduler.written(stream, len(data))

        copy_body(
            body,
            wanted=lambda: scheduler.begin_fill(stream, BUFFER),
            check=check,
            write=write,
            update=lambda data: scheduler.hash(stream, data),
            may_thread=lambda: len(scheduler.streams) < self._processors,
        )
        if stream.failure:
            raise stream.failure
        if left := self._part.chunk_map.start(stream.end) - stream.position:
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
