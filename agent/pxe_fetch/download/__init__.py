"""Entry point: download one artifact from its mirrors until its part file is complete and verified."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from pxe_fetch.download.chunked import ChunkedDownload
from pxe_fetch.download.context import Context
from pxe_fetch.download.partfile import ChunkedPart, PartLock, SequentialPart
from pxe_fetch.download.retry import unforeseen
from pxe_fetch.download.sequential import SequentialDownload
from pxe_fetch.errors import FetchError, NoRoomError
from pxe_fetch.plan import Source, Transfer


class DownloadResult(NamedTuple):
    """A complete and verified download. Sizes in bytes."""

    bytes: int  # of the whole
    bytes_received: int  # over the wire in this run, those fetched twice counted twice
    attempts: int  # 1, and 1 for each that failed or sent wrong bytes; 0 if an earlier run had left all of it
    url: str | None  # the mirror that finished it, redacted; None if none was asked
    resumed_from: int  # bytes left by an earlier run


def download(
    transfer: Transfer, context: Context, *, lock: PartLock, reserve: Callable[[int], None] = lambda _: None
) -> DownloadResult:
    """Download `transfer` completely to its part file, which `lock` locks, and verify it.

    Several threads may share one `context`. The artifact's own deadline starts now. Once `context.stop` is set, it ends
    within a second, unless a connection is being made (`timeouts.connect`). If the transfer has a chunk map, ranges of
    it are downloaded in as many further streams as `context.streams` has free. `reserve` is called with the size of the
    whole, if known, before the first byte is written; it may raise NoRoomError.

    Raises only FetchError, of the class that names the cause: NetworkError, IntegrityError, RefusedError, PolicyError
    or TrustError when every mirror and attempt is used up; DeadlineError; StoppedError; NoRoomError (the part file is
    then removed), DiskError, CannotCreateError. Otherwise the part file stays for a later run to resume. The error's
    `attempts`, `bytes_received` and `url` say what was tried.
    """
    try:
        if transfer.size is not None:
            reserve(transfer.size)
        part: ChunkedPart | SequentialPart
        engine: ChunkedDownload | SequentialDownload
        if transfer.chunk_map:
            part = ChunkedPart(lock, transfer.chunk_map)
            engine = ChunkedDownload(transfer, part=part, context=context)
        else:
            part = SequentialPart(lock.fd, lock.path, digest=transfer.digest)
            engine = SequentialDownload(transfer, part=part, context=context, reserve=reserve)
        _run(engine)
    except NoRoomError:
        lock.remove()
        raise
    attempts = engine.attempts
    return DownloadResult(
        bytes=part.length,
        bytes_received=attempts.received,
        attempts=attempts.number,
        url=attempts.last_url(),
        resumed_from=attempts.resumed_from,
    )


def fetch_text(
    source: Source, context: Context, *, limit: int, accept: Callable[[bytes], object] = lambda _: None
) -> bytes:
    """Download something small (a configuration, a list of digests), with the same retries, into memory.

    `accept` is called with all that a mirror sent, and raises IntegrityError if that cannot be it: then that mirror
    has failed. Raises what `download` raises, and PolicyError if it has more than `limit` bytes.
    """
    with open(os.memfd_create("pxe-fetch"), "rb", buffering=0) as memory:  # noqa: PTH123
        part = SequentialPart(memory.fileno(), source.name, digest=source.digest, limit=limit, accept=accept)
        _run(SequentialDownload(source, part=part, context=context))
        return memory.read()


def _run(engine: SequentialDownload | ChunkedDownload) -> None:
    try:
        engine.run()
    except FetchError as error:
        error.attempts, error.bytes_received = engine.attempts.number, engine.attempts.received
        error.url = error.url or engine.attempts.last_url()
        raise
    except Exception as error:
        raise unforeseen(error) from error
