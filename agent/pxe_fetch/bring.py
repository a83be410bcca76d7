"""The artifacts brought, several at once: each looked at, fetched, put in place, and its units started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import Protocol

from pxe_fetch import sums
from pxe_fetch.contract.chunks import LINE, count, unlisted
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.model import Digest
from pxe_fetch.errors import PolicyError, StoppedError
from pxe_fetch.pieces import Pieces
from pxe_fetch.place import file
from pxe_fetch.place.room import Room
from pxe_fetch.plan import Order, Transfer
from pxe_fetch.redact import redact
from pxe_fetch.reporting.account import Account
from pxe_fetch.reporting.journal import WARNING
from pxe_fetch.reporting.outcome import Outcome, of_error
from pxe_fetch.roots import Roots
from pxe_fetch.transfer.receive import ahead, fetch_text, receive
from pxe_fetch.transfer.streams import Streams
from pxe_fetch.transport import Transports
from pxe_fetch.workers import Following, Workers

MANY = 250  # artifacts, one as quick as the other: from so many on other processes are worth their start


class Placing(Protocol):
    """A way to put verified bytes in place: a module with these two functions."""

    def is_right(self, transfer: Transfer, /) -> bool:
        """Whether the destination is what it should be already."""

    def place(self, transfer: Transfer, /) -> None:
        """Make the part file the destination, all or nothing. Raises FetchError."""


@dataclass(frozen=True, kw_only=True)
class Bringer:
    """All that bringing one artifact needs beside the artifact."""

    account: Account
    transports: Transports
    roots: Roots
    deadline: float  # monotonic; of the run
    stop: Event
    room: Room
    streams: Streams = field(default_factory=lambda: Streams(0))  # beside those of the workers
    failures: dict[str, Outcome] = field(default_factory=dict)  # by name
    started: dict[str, str] = field(default_factory=dict)  # unit -> the artifact it was started for

    def bring_all(self, orders: Iterable[Order], *, parallel: int, many: Callable[[SimpleQueue[Order]], None]) -> None:
        """Bring `orders`, up to `parallel` at once, in their order; those that fail are in `failures` then.

        `many` may bring some of what waits when that is MANY and each is quick; nothing is under way then. Raises
        StoppedError in the main thread, when a signal does.
        """
        waiting: SimpleQueue[Order] = SimpleQueue()
        for order in orders:
            waiting.put(order)
        workers = Workers(waiting, self.work, most=parallel, stop=self.stop, spare=self.streams.give)
        if workers.run(pause_at=MANY):
            many(waiting)
            workers.run()
        self.look_at_units()

    def work(self, order: Order, following: Following[Order]) -> None:
        """Bring `order`, or note why it is not to be had. Raises StoppedError."""
        try:
            self._bring(order, following)
        except StoppedError:
            _drop_if_empty(order)
            raise  # it is no failure of the artifact's; the run says why it ended
        except OSError as error:  # the engine's are FetchErrors: this one is about the destination
            _drop_if_empty(order)
            self.failed(order.name, file.explain(error, f"{order.dest} cannot be put in place"))
        except Exception as error:  # a bug in one transfer must not leave the others unfinished
            _drop_if_empty(order)
            self.failed(order.name, error)
        finally:
            self.room.release(order.name)

    def failed(self, name: str, error: Exception) -> None:
        """Note that the artifact `name` is not to be had in this run."""
        outcome = self.failures[name] = of_error(error)
        self.account.failed(name, outcome)
        if outcome.exit_code == Exit.BUG:
            self.account.explain(error)

    def _bring(self, order: Order, following: Following[Order]) -> None:
        """One artifact, until it is in place. Raises FetchError."""
        self.account.checking(order.name)
        if not self.roots.check(order.dest):  # again: since it was planned, links may have been made
            file.prepare(order.dest)
            self.roots.check(order.dest)
        digest = order.digest or (self._digest(order) if order.digest_url else None)
        transfer = order.pinned(digest, self._pieces(order) if order.chunks else None)
        placing = _placing(transfer)
        if placing.is_right(transfer):
            with suppress(OSError):  # a read-only place says so whether there is a part or not
                transfer.part.unlink()
            self.account.kept(transfer)
            self._start(transfer)
            return
        received = receive(
            transfer,
            transports=self.transports,
            events=self.account,
            stop=self.stop,
            deadline=self.deadline,
            streams=self.streams,
            claim=partial(self.room.claim, order.name),
            soon=partial(self._ask_ahead, following),
        )
        self.room.release(order.name)  # what it takes it has
        self.account.received(order.name, received)
        self.roots.check(order.dest)
        placing.place(transfer)
        self.account.placed(transfer)
        self._start(transfer)

    def _ask_ahead(self, following: Following[Order]) -> None:
        """Have the next artifact asked for, where it is plain that all of it will be."""
        order = following()
        if order is None or order.digest is None or order.chunks:
            return
        if not os.path.lexists(order.part) and not os.path.lexists(order.dest):
            ahead(order, transports=self.transports, stop=self.stop, deadline=self.deadline)

    def _start(self, transfer: Transfer) -> None:
        """Have the units started that wait for an artifact in place: also where it was when the node booted."""
        for unit in transfer.start:
            from pxe_fetch import units

            if trouble := units.start(unit):
                self.account.remark(f"{transfer.name}: {unit} could not be started: {trouble}", priority=WARNING)
            else:
                self.started[unit] = transfer.name

    def look_at_units(self) -> None:
        """Tell of the units that were started and have failed since. Nobody waits for those that are yet to."""
        if not self.started:
            return
        from pxe_fetch import units

        for unit in units.failed(list(self.started)):
            remark = f"{self.started[unit]}: {unit} was started, and has failed: see systemctl status {unit}"
            self.account.remark(remark, priority=WARNING)

    def _digest(self, order: Order) -> Digest:
        """The digest that the artifact's SHA256SUMS file gives. Raises FetchError."""
        url = order.digest_url or ""
        text = self._text(order, (url,), name=f"{order.name} (digests)", limit=sums.LARGEST)
        return sums.digest_of(order.listed, sums=text.decode(errors="replace"), where=redact(url))

    def _pieces(self, order: Order) -> Pieces | None:
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
        return Pieces(size=size, chunk=chunks.size, digests=digests)

    def _text(self, order: Order, urls: Sequence[str], *, name: str, limit: int, digest: Digest | None = None) -> bytes:
        """Something small that belongs to the artifact. Raises FetchError."""
        return fetch_text(
            urls,
            name=name,
            digest=digest,
            limit=limit,
            transports=self.transports,
            events=self.account,
            stop=self.stop,
            retry=order.retry,
            timeouts=order.timeouts,
            headers=order.headers,
            deadline=self.deadline,
        )


def _placing(transfer: Transfer) -> Placing:
    """How `transfer` is put in place."""
    match transfer.extract:
        case "tar":
            from pxe_fetch.place import tree

            return tree
        case "decompress":
            from pxe_fetch.place import decompress

            return decompress
    return file


def _drop_if_empty(order: Order) -> None:
    """Leave no part file behind that nothing can be resumed from."""
    try:
        if order.part.lstat().st_size == 0:
            order.part.unlink()
    except OSError:
        return
