"""A transfer ready to be made, with a clock that does not wait and a listener that remembers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import NamedTuple

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.model import Digest, Proxy, RetryPolicy, Timeouts, Tls
from pxe_fetch.deadline import Clock, Deadline
from pxe_fetch.download.context import Context, StreamBudget
from pxe_fetch.download.partfile import PartLock
from pxe_fetch.fetcher import download
from pxe_fetch.filesystem import Folder
from pxe_fetch.plan import Transfer
from pxe_fetch.transport import Body, Request, Transports

QUICK = Timeouts(  # for what stalls or drips; on a busy machine they may also fire where nothing is wrong
    connect=1.0, read=0.1, min_rate=1024, min_rate_window=0.2
)
PATIENT = Timeouts(connect=5.0, read=10.0)


def asking(url: str, *, headers: Mapping[str, str] | None = None, offset: int = 0, end: int | None = None) -> Request:
    """A request for `url` that has time."""
    deadline = Deadline(clock=Clock(), stop=Event(), at=time.monotonic() + 60)
    return Request(url=url, headers=headers or {}, offset=offset, end=end, timeouts=PATIENT, deadline=deadline)


def everything(body: Body) -> bytes:
    """All that `body` brings; it is closed then."""
    try:
        view, found = memoryview(bytearray(8192)), b""
        while count := body.readinto(view):
            found += view[:count]
        return found
    finally:
        body.close()


@dataclass
class QuickClock(Clock):
    """Waits are remembered and over at once, the clock jumps; `during` is called in each, with its number from 0."""

    during: Callable[[int], None] | None = None
    is_set: bool = True
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() + sum(self.waits)

    def sleep(self, seconds: float, *, stop: Event) -> None:
        del stop
        self.waits.append(seconds)
        if self.during:
            self.during(len(self.waits) - 1)

    def synchronised(self) -> bool:
        return self.is_set


@dataclass
class EventRecorder:
    """Every event, as (kind, its facts)."""

    all: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def of(self, kind: str) -> list[Mapping[str, object]]:
        return [facts for each, facts in self.all if each == kind]

    def resolved(self, transfer: Transfer, *, reference: str) -> None:
        self.all.append(("resolved", {"name": transfer.name, "reference": reference}))

    def lost_chunks(self, transfer: Transfer, *, error: str) -> None:
        self.all.append(("lost_chunks", {"name": transfer.name, "error": error}))

    def started(self, name: str, *, url: str, offset: int, total: int | None, **_others: str | None) -> None:
        self.all.append(("started", {"name": name, "url": url, "offset": offset, "total": total}))

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        self.all.append(("resumed", {"name": name, "url": url, "offset": offset}))

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        self.all.append(("progress", {"name": name, "received": received, "total": total}))

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        facts = {"url": url, "attempt": attempt, "error": error, "status": status, "next_url": next_url}
        self.all.append(("retrying", {"name": name, "wait_seconds": wait_seconds, **facts}))

    def mirror_dropped(self, name: str, *, url: str, reason: str) -> None:
        self.all.append(("mirror_dropped", {"name": name, "url": url, "reason": reason}))

    def limited(self, *, url: str, streams: int, error: str) -> None:
        self.all.append(("limited", {"url": url, "streams": streams, "error": error}))

    def chunk_wrong(self, name: str, *, url: str, error: str) -> None:
        self.all.append(("chunk_wrong", {"name": name, "url": url, "error": error}))

    def chunk_mended(self, name: str, *, url: str, chunk: int) -> None:
        self.all.append(("chunk_mended", {"name": name, "url": url, "chunk": chunk}))

    def verifying(self, name: str, *, total: int) -> None:
        self.all.append(("verifying", {"name": name, "total": total}))

    def verified(self, name: str, *, digest: str, total: int) -> None:
        self.all.append(("verified", {"name": name, "digest": digest, "total": total}))


class Downloaded(NamedTuple):
    """What a download took: bytes over the wire and those that an earlier run had left, attempts, the last mirror."""

    bytes_received: int
    resumed_from: int
    attempts: int
    url: str | None


@dataclass(kw_only=True)
class Bench:
    """One artifact, `body`, to be fetched into `folder`; everything can be set before `download`."""

    body: bytes
    folder: Path
    urls: Sequence[str]
    name: str = "model"
    size: int | None = None
    digest: Digest | None = None
    chunk: int | None = None  # bytes of a chunk; None: a digest of the whole
    keep_order: bool = False  # `mirror_order: listed`
    streams: int = 4  # at once, where there are chunks
    headers: Mapping[str, str] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = PATIENT
    tls: Tls = field(default_factory=Tls)
    proxy: Proxy = field(default_factory=Proxy)
    transports: Transports | None = None
    clock: QuickClock = field(default_factory=QuickClock)
    events: EventRecorder = field(default_factory=EventRecorder)
    stop: Event = field(default_factory=Event)

    @property
    def part(self) -> Path:
        return self.folder / f"{self.name}.part"

    def transfer(self) -> Transfer:
        return Transfer(
            name=self.name,
            mirrors=tuple((url,) for url in self.urls) if self.keep_order else (tuple(self.urls),),
            listed_url=self.urls[0] if self.urls else "",
            digest=self.digest or (None if self.chunk else sha256(self.body)),
            size=len(self.body) if self.chunk else self.size,
            chunk_map=cut(self.body, chunk=self.chunk) if self.chunk else None,
            dest=self.folder / self.name,
            part=self.part,
            headers=self.headers,
            retry=self.retry,
            timeouts=self.timeouts,
        )

    def download(
        self, *, deadline: float = float("inf"), reserve: Callable[[int], None] = lambda _: None
    ) -> Downloaded:
        """What the download took; the part is checked to hold exactly the body."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        transports = self.transports or Transports(tls=self.tls, proxy=self.proxy)
        context = Context(
            transports=transports,
            events=self.events,
            stop=self.stop,
            clock=self.clock,
            run_deadline=deadline,
            streams=StreamBudget(self.streams - 1),
        )
        try:
            with closing(Folder(str(self.folder))) as folder, closing(PartLock(folder, self.part.name)) as lock:
                done = download(self.transfer(), context, lock=lock, reserve=reserve)
        finally:
            if not self.transports:
                transports.close()
        assert self.part.read_bytes() == self.body
        return Downloaded(done.received, done.resumed_from, done.number, done.last_url())


def sha256(body: bytes) -> Digest:
    """The digest of `body`."""
    return Digest(algorithm="sha256", hex=hashlib.sha256(body).hexdigest())


def cut(body: bytes, *, chunk: int) -> ChunkMap:
    """The chunks of `body`."""
    digests = b"".join(hashlib.sha256(body[at : at + chunk]).digest() for at in range(0, len(body), chunk))
    return ChunkMap(size=len(body), chunk=chunk, digests=digests)
