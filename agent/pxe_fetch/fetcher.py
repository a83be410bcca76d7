"""The artifacts brought, several at once: each looked at, fetched, put in place, and its units started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Protocol

from pxe_fetch import sha256sums
from pxe_fetch.allowed_roots import AllowedRoots
from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.chunks import LINE, count, unlisted
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.model import Digest
from pxe_fetch.download.download import fetch_text, receive
from pxe_fetch.download.stream_budget import StreamBudget
from pxe_fetch.errors import PolicyError, StoppedError
from pxe_fetch.install import file
from pxe_fetch.install.disk_space import DiskSpace
from pxe_fetch.plan import Order, Transfer
from pxe_fetch.redact import redact
from pxe_fetch.reporting.event_log import EventLog
from pxe_fetch.reporting.journal import WARNING
from pxe_fetch.reporting.result import Result, error_result
from pxe_fetch.transport import Transports
from pxe_fetch.worker_pool import run_all


class Installer(Protocol):
    """A way to put verified bytes in place: a module with these two functions."""

    def is_current(self, transfer: Transfer, /) -> bool:
        """Whether the destination is what it should be already."""

    def install(self, transfer: Transfer, /) -> None:
        """Make the part file the destination, all or nothing. Raises FetchError."""


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """All that bringing one artifact needs beside the artifact."""

    event_log: EventLog
    transports: Transports
    roots: AllowedRoots
    deadline: float  # monotonic; of the run
    stop: Event
    room: DiskSpace
    streams: StreamBudget = field(default_factory=lambda: StreamBudget(0))  # beside those of the workers
    failures: dict[str, Result] = field(default_factory=dict)  # by name
    started: dict[str, str] = field(default_factory=dict)  # unit -> the artifact it was started for

    def fetch_all(self, orders: Iterable[Order], *, parallel: int) -> None:
        """Fetch `orders` in their order, up to `parallel` at a time; those that fail are in `failures` afterwards.

        Raises StoppedError when a signal arrives in the calling thread.
        """
        run_all(orders, self._fetch, threads=parallel, stop=self.stop, on_idle=self.streams.give)
        self.check_started_units()

    def _fetch(self, order: Order) -> None:
        """Fetch and install `order`, or record why that failed. Raises StoppedError."""
        try:
            self._fetch_one(order)
        except StoppedError:
            _drop_if_empty(order)
            raise  # not a failure of the artifact: the run says why it ended
        except OSError as error:  # the transports and downloads raise FetchError: this is about the destination
            _drop_if_empty(order)
            self.failed(order.name, file.translate_error(error, f"cannot install {order.dest}"))
        except Exception as error:  # a bug in one artifact must not leave the others unfinished
            _drop_if_empty(order)
            self.failed(order.name, error)
        finally:
            self.room.release(order.name)

    def failed(self, name: str, error: Exception) -> None:
        """Note that the artifact `name` is not to be had in this run."""
        result = self.failures[name] = error_result(error)
        self.event_log.failed(name, result)
        if result.exit_code == Exit.BUG:
            self.event_log.log_details(error)

    def _fetch_one(self, order: Order) -> None:
        """One artifact, until it is in place. Raises FetchError."""
        self.event_log.checking(order.name)
        if not self.roots.check(order.dest):  # again: since it was planned, links may have been made
            file.make_parents(order.dest)
            self.roots.check(order.dest)
        digest = order.digest or (self._digest(order) if order.digest_url else None)
        transfer = order.pinned(digest, self._pieces(order) if order.chunks else None)
        placing = _placing(transfer)
        if placing.is_current(transfer):
            with suppress(OSError):  # a read-only place says so whether there is a part or not
                transfer.part.unlink()
            self.event_log.up_to_date(transfer)
            self._start(transfer)
            return
        received = receive(
            transfer,
            transports=self.transports,
            events=self.event_log,
            stop=self.stop,
            run_deadline=self.deadline,
            streams=self.streams,
            claim=partial(self.room.reserve, order.name),
        )
        self.room.release(order.name)  # what it takes it has
        self.event_log.downloaded(order.name, received)
        self.roots.check(order.dest)
        placing.install(transfer)
        self.event_log.installed(transfer)
        self._start(transfer)

    def _start(self, transfer: Transfer) -> None:
        """Have the units started that wait for an artifact in place: also where it was when the node booted."""
        for unit in transfer.start:
            from pxe_fetch import systemctl

            if trouble := systemctl.start(unit):
                self.event_log.log(f"{transfer.name}: {unit} could not be started: {trouble}", priority=WARNING)
            else:
                self.started[unit] = transfer.name

    def check_started_units(self) -> None:
        """Tell of the units that were started and have failed since. Nobody waits for those that are yet to."""
        if not self.started:
            return
        from pxe_fetch import systemctl

        for unit in systemctl.failed(list(self.started)):
            remark = f"{self.started[unit]}: {unit} was started, and has failed: see systemctl status {unit}"
            self.event_log.log(remark, priority=WARNING)

    def _digest(self, order: Order) -> Digest:
        """The digest that the artifact's SHA256SUMS file gives. Raises FetchError."""
        url = order.digest_url or ""
        text = self._text(order, (url,), name=f"{order.name} (digests)", limit=sha256sums.LARGEST)
        return sha256sums.digest_of(order.listed, sums=text.decode(errors="replace"), where=redact(url))

    def _pieces(self, order: Order) -> ChunkMap | None:
        """The artifact's chunks, their digests fetched where they are a file of their own. Raises FetchError."""
        chunks, size = order.chunks, order.size
        if chunks is None or size is None:
            return None
        digests = chunks.digests
        if chunks.urls:
            number = count(size, chunk=chunks.size)
            name = f"{order.name} (chunk digests)"
            text = self._text(order, chunks.urls, name=name, limit=LINE * number, digest=chunks.digest)
            try:
                digests = unlisted(text, number=number)
            except ValueError as error:
                message = f"the list of chunk digests at {redact(chunks.urls[0])} is no such list: {error}"
                raise PolicyError(message) from None
        return ChunkMap(size=size, chunk=chunks.size, digests=digests)

    def _text(self, order: Order, urls: Sequence[str], *, name: str, limit: int, digest: Digest | None = None) -> bytes:
        """Something small that belongs to the artifact. Raises FetchError."""
        return fetch_text(
            urls,
            name=name,
            digest=digest,
            limit=limit,
            transports=self.transports,
            events=self.event_log,
            stop=self.stop,
            retry=order.retry,
            timeouts=order.timeouts,
            headers=order.headers,
            run_deadline=self.deadline,
        )


def _placing(transfer: Transfer) -> Installer:
    """How `transfer` is put in place."""
    match transfer.extract:
        case "tar":
            from pxe_fetch.install import tree

            return tree
        case "decompress":
            from pxe_fetch.install import decompress

            return decompress
    return file


def _drop_if_empty(order: Order) -> None:
    """Leave no part file behind that nothing can be resumed from."""
    try:
        if order.part.lstat().st_size == 0:
            order.part.unlink()
    except OSError:
        return
