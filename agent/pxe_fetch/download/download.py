"""One artifact: mirrors, attempts and ranges, until its bytes are here and verified."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Event

from pxe_fetch.contract.model import Digest, RetryPolicy, Timeouts
from pxe_fetch.deadline import Clock, Deadline, SystemClock
from pxe_fetch.download.events import Events
from pxe_fetch.download.partfile import ChunkedPart, FilePart, MemoryPart
from pxe_fetch.download.sequential import SequentialDownload
from pxe_fetch.download.stream_budget import StreamBudget
from pxe_fetch.download.verify import Digester
from pxe_fetch.errors import FetchError, NoRoomError
from pxe_fetch.humanize import span
from pxe_fetch.transport import Transports

TYPE_CHECKING = False  # what is only named in a signature need not be imported at boot
if TYPE_CHECKING:
    from pxe_fetch.download.chunked import ChunkedDownload
    from pxe_fetch.plan import Transfer


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadResult:
    """An artifact that is here and verified. Sizes in bytes."""

    bytes: int  # of the whole
    bytes_received: int  # over the wire in this run, those fetched twice counted twice
    attempts: int  # 1, and 1 for each that failed or brought wrong bytes; 0 when an earlier run had left all of it
    url: str | None  # the mirror that finished it, redacted; None when nobody was asked
    seconds: float
    resumed_from: int  # what an earlier run had left of it


def receive(
    transfer: Transfer,
    *,
    transports: Transports,
    events: Events,
    stop: Event,
    clock: Clock | None = None,
    run_deadline: float = math.inf,
    streams: StreamBudget | None = None,
    claim: Callable[[int], None] | None = None,
) -> DownloadResult:
    """Bring the bytes of `transfer` into `transfer.part`: whole, verified, not yet placed; its folder is there.

    May run in several threads at once, with the same `transports`, `events` and `stop`. `run_deadline` is the run's (on
    `clock.now()`); the artifact's own is counted from now. When `stop` is set it ends within a second, but for a
    connection that is just being made (`timeouts.connect`). Where the transfer has chunk digests, ranges of it come in
    as many streams more as `streams` has free. `claim` is called with the size of the whole, if that is known, before
    the first byte is written; it may raise NoRoomError.

    Raises only FetchError, of the class that names the cause: NetworkError, IntegrityError, RefusedError, PolicyError
    or TrustError when every mirror and attempt is used up; DeadlineError; StoppedError; NoRoomError (the part is gone
    then), DiskError, CannotCreateError. But for NoRoomError the part stays, to be resumed by a later run. The error's
    `attempts`, `bytes_received` and `url` tell what had happened.
    """
    clock = clock or SystemClock()
    with _NOTHING_ELSE_ESCAPES:
        began = clock.now()
        deadline = _deadline(clock, stop=stop, of_run=run_deadline, own=transfer.retry.deadline)
        deadline.check()
        part, reception, resume = _reception(
            transfer,
            transports=transports,
            events=events,
            deadline=deadline,
            streams=streams or StreamBudget(0),
            claim=claim,
        )
        try:
            if claim and transfer.size is not None:
                claim(transfer.size)
            if part.resumable_size():
                resume()
            reception.run()
        except NoRoomError:
            part.discard()
            raise
        finally:
            part.close()
        return DownloadResult(
            bytes=part.length,
            bytes_received=reception.bytes_received,
            attempts=reception.attempts,
            url=reception.last_url(),
            seconds=clock.now() - began,
            resumed_from=reception.resumed_from,
        )


def _reception(
    transfer: Transfer,
    *,
    transports: Transports,
    events: Events,
    deadline: Deadline,
    streams: StreamBudget,
    claim: Callable[[int], None] | None,
) -> tuple[FilePart | ChunkedPart, SequentialDownload | ChunkedDownload, Callable[[], None]]:
    """Where the bytes go, what brings them there, and what takes up what an earlier run left.

    Raises CannotCreateError or DiskError.
    """
    if transfer.pieces:
        from pxe_fetch.download.chunked import ChunkedDownload

        chunked = ChunkedPart(transfer.part, pieces=transfer.pieces)
        parallel = ChunkedDownload(
            name=transfer.name,
            urls=transfer.urls,
            digest=transfer.digest,
            headers=transfer.headers,
            retry=transfer.retry,
            timeouts=transfer.timeouts,
            part=chunked,
            transports=transports,
            streams=streams,
            events=events,
            deadline=deadline,
        )
        return chunked, parallel, parallel.resume
    part = FilePart(transfer.part, digester=lambda: Digester(transfer.digest))
    reception = SequentialDownload(
        name=transfer.name,
        urls=transfer.urls,
        digest=transfer.digest,
        size=transfer.size,
        headers=transfer.headers,
        retry=transfer.retry,
        timeouts=transfer.timeouts,
        part=part,
        transports=transports,
        events=events,
        deadline=deadline,
        claim=claim,
    )
    return part, reception, lambda: reception.resume(part)


def fetch_text(
    urls: Sequence[str],
    *,
    name: str,
    digest: Digest | None,
    limit: int,
    transports: Transports,
    events: Events,
    stop: Event,
    retry: RetryPolicy,
    timeouts: Timeouts,
    headers: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    run_deadline: float = math.inf,
) -> bytes:
    """The bytes that `urls` have (a configuration, a list of digests), at most `limit`, with the same persistence.

    `name` is what the events call it. Raises what `receive` raises, and PolicyError when there are more bytes.
    """
    clock = clock or SystemClock()
    with _NOTHING_ELSE_ESCAPES:
        deadline = _deadline(clock, stop=stop, of_run=run_deadline, own=retry.deadline)
        part = MemoryPart(limit=limit, digester=lambda: Digester(digest))
        reception = SequentialDownload(
            name=name,
            urls=urls,
            digest=digest,
            size=None,
            headers=headers or {},
            retry=retry,
            timeouts=timeouts,
            part=part,
            transports=transports,
            events=events,
            deadline=deadline,
        )
        reception.run()
        return part.value()


def _deadline(clock: Clock, *, stop: Event, of_run: float, own: float) -> Deadline:
    """Until the run's deadline `of_run`, or for the `own` seconds if those are over first."""
    end = clock.now() + own
    if of_run < end:
        return Deadline(clock=clock, stop=stop, at=of_run, message="the run's deadline is over")
    return Deadline(clock=clock, stop=stop, at=end, message=_over(own))


@lru_cache(maxsize=8)
def _over(own: float) -> str:
    return f"its deadline of {span(own)} is over"


class _Guard:
    """What an exception that is none of FetchError's is made inside it."""

    def __enter__(self) -> None:
        """Nothing is needed: it holds nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, FetchError):
            raise FetchError(f"a fault of pxe-fetch itself: {type(error).__name__}: {error}") from error


_NOTHING_ELSE_ESCAPES = _Guard()
