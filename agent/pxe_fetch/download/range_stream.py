"""One request and its body: bytes to their places in the part, hashed on the way, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.chunk_hasher import ChunkHasher
from pxe_fetch.download.chunk_tracker import PartialChunk
from pxe_fetch.download.copy import BUFFER, WRITTEN_EVERY, HashPipeline, MinimumRate
from pxe_fetch.download.partfile import ChunkedPart
from pxe_fetch.download.scheduler import Assignment, ChunkScheduler
from pxe_fetch.download.verify import check_size
from pxe_fetch.errors import FetchError, NetworkError, RangeError
from pxe_fetch.transport import Body, Request, Transports

_LONG = 4 * 1024 * 1024  # bytes after which a second thread is worth its start


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch(Deadline):
    """Patience that has an eye on the others, also while a stream waits for a byte."""

    look: Callable[[], None]  # is there something to do for one more stream?
    every: float = 0.25  # seconds
    looked: list[float] = field(default_factory=lambda: [0.0])  # when, by whichever thread

    def check(self) -> None:
        Deadline.check(self)
        now = self.clock.now()
        if now - self.looked[0] >= self.every:
            self.looked[0] = now
            self.look()


class Stream:
    """Carries out jobs, one after the other."""

    def __init__(
        self,
        *,
        board: ChunkScheduler,
        part: ChunkedPart,
        transports: Transports,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        deadline: Watch,
        cores: int,
    ) -> None:
        self._board = board
        self._part = part
        self._pieces = part.pieces
        self._transports = transports
        self._headers = headers
        self._timeouts = timeouts
        self._deadline = deadline
        self._cores = cores

    def carry_out(self, job: Assignment) -> FetchError | None:
        """Fetch the job's run, or as much of it as comes; what kept the rest from coming."""
        beginning: PartialChunk | None = None
        error: FetchError | None = None
        try:
            self._fetch(job)
        except _BrokenError as broken:
            beginning, error = broken.beginning, broken.error
        except FetchError as caught:
            beginning, error = job.run.beginning, caught
        except Exception as caught:
            error = FetchError(f"a fault of pxe-fetch itself: {type(caught).__name__}: {caught}")
            error.__cause__ = caught
        self._board.end(job, beginning=beginning, error=error)
        return error

    def _fetch(self, job: Assignment) -> None:
        self._deadline.check()
        mirror, run = job.mirror, job.run
        is_ranged = mirror.ranges
        request = Request(
            url=mirror.url,
            offset=run.at if is_ranged else 0,
            # No If-Range: whether the server's file has changed, each chunk's digest tells.
            end=self._pieces.start(run.end) if is_ranged else None,
            headers=self._headers,
            timeouts=self._timeouts,
            deadline=self._deadline,
        )
        body = self._transports.of(mirror.url).open(request)
        try:
            if body.total is not None:
                check_size(body.total, expected=self._pieces.size)
            is_all = request.offset == 0 and request.end == self._pieces.size
            is_odd = is_ranged and not body.ranged and not is_all  # all in answer to a range over all says nothing
            if body.start != request.offset:
                raise RangeError(f"bytes from {body.start} on, when those from {request.offset} were asked for")
            if is_odd:
                self._board.gave_no_range(job)
            is_whole = not is_ranged or not body.ranged
            self._board.begins(job, total=body.total, is_range=not is_whole and not is_all)
            self._deadline.look()
            self._take_in(job, body, is_whole=is_whole)
        finally:
            body.close()

    def _take_in(self, job: Assignment, body: Body, *, is_whole: bool) -> None:
        """The run out of the body; where that is the whole file, all that it comes by and that is missing."""
        pace = MinimumRate(self._timeouts, deadline=self._deadline, sharers=lambda: max(1, self._board.working))
        at = body.start
        while True:
            self._skip(body, job.run.at - at, pace)
            self._fill(job, body, pace)
            at = job.run.at
            if not is_whole or not self._board.goes_on(job):
                return

    def _skip(self, body: Body, count: int, pace: MinimumRate) -> None:
        """Read `count` bytes that are here already, or another stream's: of a peer without ranges."""
        view = memoryview(bytearray(min(count, BUFFER)))
        while count:
            got = body.readinto(view[:count])
            if not got:
                raise NetworkError(f"the body ended {count} bytes before what is missing")
            pace.check(got)
            self._board.skipped(got)
            count -= got

    def _fill(self, job: Assignment, body: Body, pace: MinimumRate) -> None:
        """Bytes of the body to where the run is, until its end.

        Raises _BrokenError with what has come of the last chunk.
        """
        landed = partial(self._board.landed, job)
        run = job.run
        landing = ChunkHasher(self._pieces, at=run.at, beginning=run.beginning, source=job.mirror.url, landed=landed)
        lane = HashPipeline(landing)
        try:
            try:
                while reach := self._board.reach(job, BUFFER):
                    self._fill_one(job, body, pace, lane, reach)
            finally:
                lane.close()
            if job.failure:
                raise job.failure
        except FetchError as error:
            raise _BrokenError(error, landing.rest()) from error

    def _fill_one(self, job: Assignment, body: Body, pace: MinimumRate, lane: HashPipeline, reach: int) -> None:
        buffer = lane.buffer()
        filled = 0
        until = self._deadline.clock.now() + WRITTEN_EVERY
        try:
            while filled < reach:
                if job.failure:
                    raise job.failure
                count = body.readinto(buffer[filled:reach])
                if not count:
                    missing = self._pieces.start(job.run.end) - job.run.at - filled
                    raise NetworkError(f"the body ended {missing} bytes early")
                filled += count
                if pace.check(count) >= until:
                    break
        finally:
            if filled:
                # Written first: once a chunk is known to be wrong, another stream may write it.
                self._part.write(buffer[:filled], at=job.run.at)
                is_alone = self._board.working < self._cores
                lane.hash(buffer, filled, aside=is_alone and job.run.came > _LONG)
                self._board.came(job, filled)


class _BrokenError(Exception):
    """An error, and what is good nevertheless."""

    def __init__(self, error: FetchError, beginning: PartialChunk | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.beginning = beginning
