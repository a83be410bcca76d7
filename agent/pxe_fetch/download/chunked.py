"""One artifact that has chunk digests: as many streams as there are free slots, until every chunk is here and right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from threading import Event, Lock, Thread

from pxe_fetch.contract.model import Digest, RetryPolicy, Timeouts
from pxe_fetch.deadline import Deadline
from pxe_fetch.download.chunk_tracker import ChunkTracker, PartialChunk
from pxe_fetch.download.events import Events
from pxe_fetch.download.partfile import ChunkedPart
from pxe_fetch.download.range_stream import Stream, Watch
from pxe_fetch.download.scheduler import Assignment, ChunkScheduler, is_final
from pxe_fetch.download.shared_mirrors import SharedMirrors
from pxe_fetch.download.stream_budget import StreamBudget
from pxe_fetch.download.verify import Digester
from pxe_fetch.errors import DeadlineError, FetchError, PolicyError
from pxe_fetch.humanize import tried
from pxe_fetch.redact import redact
from pxe_fetch.transport import Transports

_EARLIER = frozenset(("an earlier run",))
_LOOK = 0.25  # seconds between two looks at whether there is something to do
_LET_GO = 1.0  # seconds for the other streams to end after one failed for good


class ChunkedDownload:
    """The calling thread is one of the streams; the others are started when there is a slot, and something to do."""

    def __init__(
        self,
        *,
        name: str,
        urls: Sequence[str],
        digest: Digest | None,
        headers: Mapping[str, str],
        retry: RetryPolicy,
        timeouts: Timeouts,
        part: ChunkedPart,
        transports: Transports,
        streams: StreamBudget,
        events: Events,
        deadline: Deadline,
    ) -> None:
        self._name = name
        self._digest = digest
        self._part = part
        self._pieces = part.pieces
        self._events = events
        self._streams = streams
        self._deadline = deadline
        self._began = deadline.clock.now()
        self._mirrors = SharedMirrors(urls, policy=retry)
        self._board = ChunkScheduler(
            name=name,
            pieces=self._pieces,
            mirrors=self._mirrors,
            streams=streams,
            retry=retry,
            events=events,
            clock=deadline.clock,
        )
        self._over = _Over(self._board.runs, stop=deadline.stop)
        self._stream = Stream(
            board=self._board,
            part=part,
            transports=transports,
            headers=headers,
            timeouts=timeouts,
            deadline=Watch(
                clock=deadline.clock,
                stop=self._over,
                at=deadline.at,
                message=deadline.message,
                look=self._call_for_help,
            ),
            cores=len(os.sched_getaffinity(0)),
        )
        self._fatal: FetchError | None = None
        self._last: FetchError | None = None
        self._helpers = 0
        self.resumed_from = 0  # bytes that an earlier run had left

    @property
    def attempts(self) -> int:
        """The first, and one more for each stream that failed."""
        return self._board.attempts

    @property
    def bytes_received(self) -> int:
        """Over the wire in this run, those fetched twice counted twice."""
        return self._board.received

    def last_url(self) -> str | None:
        """The mirror that gave the last chunk, or was asked last, redacted; None when nobody was asked."""
        return redact(self._board.last.url) if self._board.last else None

    def resume(self) -> None:
        """Begin with what of an earlier run is right. Raises DiskError, StoppedError, DeadlineError."""
        self._events.verifying(self._name, total=self._part.resumable_size())
        board = self._board
        lock = Lock()

        def looked(index: int, is_right: bool) -> None:  # noqa: FBT001  a value
            if is_right:
                with lock:
                    board.runs.arrived(index)
                    board.here += self._pieces.start(index + 1) - self._pieces.start(index)

        for index, length in self._part.rehash(looked=looked, check=self._deadline.check):
            if not board.runs.is_here(index):
                digest = hashlib.sha256()
                start = self._pieces.start(index)
                self._part.read_into(digest.update, start=start, end=start + length)
                board.take_up(index, PartialChunk(length=length, hash=digest, sources=_EARLIER))
        self.resumed_from = board.kept = board.here

    def run(self) -> None:
        """Fetch until the part is whole and right. Raises FetchError, as transfer.receive says."""
        try:
            try:
                self._conduct()
            finally:
                self._over.set()
                self._await_helpers()
                if self.attempts:
                    self._events.progress(self._name, received=self._board.here, total=self._pieces.size)
        except FetchError as error:
            error.attempts, error.bytes_received = self.attempts, self.bytes_received
            error.url = error.url or self.last_url()
            raise
        self._check_whole()

    def _conduct(self) -> None:
        """Work, have others work, and wait while there is nothing to do."""
        board = self._board
        while board.runs.left:
            if self._fatal:
                raise self._explained(self._fatal)
            try:
                self._deadline.check()
            except DeadlineError as error:
                raise self._explained(error) from error
            if job := board.job():
                self._work(job)
            elif board.working:
                with board.changed:
                    board.changed.wait(_LOOK)
            else:
                self._wait()

    def _work(self, job: Assignment | None) -> None:
        """Carry out `job` and whatever there is to do then."""
        while job:
            self._call_for_help()
            error = self._stream.carry_out(job)
            if error and is_final(error):
                self._end(error)
            elif error:
                self._last = error
            job = None if self._over.is_set() else self._board.job()

    def _end(self, error: FetchError) -> None:
        """Have every stream end, since no mirror can help; where all is here, that is not what had it end."""
        if self._board.runs.left:
            self._fatal = self._fatal or error
            self._over.set()

    def _call_for_help(self) -> None:
        """Start as many streams as there are slots for, and something to do."""
        while not self._over.is_set() and self._streams.take():
            job = self._board.job()
            if job is None:
                self._streams.give()
                return
            with self._board.changed:
                self._helpers += 1
            thread = Thread(target=self._help, args=(job,), name=f"{self._name}-{self._helpers}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many as the unit's TasksMax= allows are there: those have to do
                self._board.end(job, beginning=job.run.beginning, error=None)
                self._helper_ended()
                return

    def _help(self, job: Assignment) -> None:
        try:
            self._work(job)
        finally:
            self._helper_ended()

    def _helper_ended(self) -> None:
        self._streams.give()
        with self._board.changed:
            self._helpers -= 1
            self._board.changed.notify_all()

    def _wait(self) -> None:
        """Nobody is at work: until somebody may be asked again. Raises what ends it all."""
        following = self._board.following()
        if following is None:
            raise self._exhausted()
        clock = self._deadline.clock
        wait = following.not_before - clock.now()
        left = self._deadline.left()
        if wait >= left:
            raise self._too_late(f"the next attempt is due in {wait:.0f} s, but {max(0.0, left):.0f} s are left")
        if wait > 0:
            clock.sleep(wait, stop=self._deadline.stop)

    def _await_helpers(self) -> None:
        """Until the other streams have ended; a file that one may yet write to stays open."""
        with self._board.changed:
            if not self._board.changed.wait_for(lambda: not self._helpers, timeout=_LET_GO):
                self._part.keep_open()

    def _check_whole(self) -> None:
        """Every chunk is right; where a digest of the whole is given too, it has to be that of these chunks."""
        number = self._pieces.number
        text = f"sha256 of each of its {number} chunks" if number > 1 else "sha256 of its one chunk"
        if self._digest:
            digester = Digester(self._digest)

            def take(data: memoryview) -> None:
                self._deadline.check()
                digester.update(data)

            self._part.read_into(take, start=0, end=self._pieces.size)
            digester.check(remark="every chunk is right, so the configuration contradicts itself")
            text = str(self._digest)
        self._events.verified(self._name, digest=text, total=self._pieces.size)

    def _explained(self, error: FetchError) -> FetchError:
        return self._too_late(str(error)) if isinstance(error, DeadlineError) else error

    def _exhausted(self) -> FetchError:
        """The error that names the cause, with what was tried in its message."""
        if not self.attempts:
            return PolicyError("there is no url to fetch it from")
        error = self._mirrors.verdict()
        error.args = (f"{error} ({self._tried()})",)
        return error

    def _too_late(self, why: str) -> DeadlineError:
        cause = f"; the last error: {self._last}" if self._last and not isinstance(self._last, DeadlineError) else ""
        return DeadlineError(f"{why} ({self._tried()}){cause}")

    def _tried(self) -> str:
        return tried(
            self.attempts,
            mirrors=self._mirrors.asked(),
            seconds=self._deadline.clock.now() - self._began,
            here=self._board.here,
            total=self._pieces.size,
        )


class _Over(Event):
    """Set when it is, when `stop` is, or when every chunk is here: a stream may wait for bytes that others brought."""

    def __init__(self, runs: ChunkTracker, *, stop: Event) -> None:
        super().__init__()
        self._runs = runs
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set() or not self._runs.left
