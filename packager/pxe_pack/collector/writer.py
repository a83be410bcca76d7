"""The one writer: it gathers what comes within a moment, and commits it together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from prometheus_client import CollectorRegistry, Histogram
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from pxe_pack.collector.entries import Entry, Failure
from pxe_pack.collector.record import record
from pxe_pack.collector.retention import prune

GATHER = 0.01  # seconds in which entries are gathered for one commit
LARGEST_BATCH = 256
QUEUED = 4096  # entries that may wait; more are refused
PRUNE_INTERVAL = 300.0  # seconds
PRUNE_SHARE = 8  # and whenever this part of what may be kept has been written
T = TypeVar("T")
_log = logging.getLogger(__name__)


class BusyError(Exception):
    """The entries could not be written now; the text says why."""


class Writer:
    """Writes entries in batches. `failed` is called with each node whose run has just failed."""

    def __init__(
        self,
        engine: Engine,
        *,
        registry: CollectorRegistry,
        failed: Callable[[Failure], None],
        retention_age: float,
        retention_size: int,
    ) -> None:
        self._written = 0  # characters since the last time that old ones were deleted
        self.error = ""  # why the last commit failed
        self._engine, self._failed = engine, failed
        self._retention_age, self._retention_size = retention_age, retention_size
        self._waiting: asyncio.Queue[tuple[Entry, asyncio.Future[str]]] = asyncio.Queue(QUEUED)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._seconds = Histogram("pxe_pack_commit_seconds", "Time of one commit to the database.", registry=registry)

    async def write(self, *entries: Entry) -> list[str]:
        """Write `entries`; for each, why it is refused, or "". They are committed then. Raises BusyError."""
        if self._waiting.qsize() + len(entries) > QUEUED:
            raise BusyError("too many reports are waiting to be written")
        written: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in entries]
        for pair in zip(entries, written, strict=True):
            self._waiting.put_nowait(pair)
        return await asyncio.gather(*written)

    async def run(self) -> None:
        """Write until cancelled, and delete what is too old or too much, at first and then now and again."""
        await self._prune()
        pruned = time.monotonic()
        while True:
            batch = await self._gathered(until=pruned + PRUNE_INTERVAL)
            if batch:
                await self._commit(batch)
            if time.monotonic() >= pruned + PRUNE_INTERVAL or self._written > self._retention_size // PRUNE_SHARE:
                await self._prune()
                pruned = time.monotonic()

    async def _prune(self) -> None:
        self._written = 0
        try:
            await self._in_thread(
                lambda: prune(self._engine, older_than=self._retention_age, larger_than=self._retention_size)
            )
        except SQLAlchemyError as error:
            _log.warning("cannot delete old runs: %s", _cause(error))

    async def _gathered(self, *, until: float) -> list[tuple[Entry, asyncio.Future[str]]]:
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                batch = [await self._waiting.get()]
        except TimeoutError:
            return []
        if self._waiting.empty():  # else enough has come during the commit before this one
            await asyncio.sleep(GATHER)
        with suppress(asyncio.QueueEmpty):
            while len(batch) < LARGEST_BATCH:
                batch.append(self._waiting.get_nowait())
        return batch

    async def _commit(self, batch: Sequence[tuple[Entry, asyncio.Future[str]]]) -> None:
        try:
            with self._seconds.time():
                outcome = await self._in_thread(lambda: record(self._engine, [entry for entry, _ in batch]))
        except Exception as error:
            await self._not_committed(batch, error)
            return
        self.error = ""
        self._written += outcome.size
        for index, (_, written) in enumerate(batch):
            if not written.done():  # its request has been given up
                written.set_result(outcome.refused.get(index, ""))
        for failure in outcome.failures:
            self._failed(failure)

    async def _not_committed(self, batch: Sequence[tuple[Entry, asyncio.Future[str]]], error: Exception) -> None:
        is_down = isinstance(error, OperationalError)  # the disk is full, the server cannot be reached
        if len(batch) > 1 and not is_down:  # one entry must not keep the others out
            for one in batch:
                await self._commit([one])
            return
        if not self.error:
            _log.error("cannot write to the database: %s", _cause(error), exc_info=None if is_down else error)
        self.error = _cause(error)
        for _, written in batch:
            if not written.done():
                written.set_exception(BusyError(f"the database cannot be written: {self.error}"))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _cause(error: Exception) -> str:
    """The database's own words on one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]
