"""Tells open pages that something has changed: one look at the database a second for all of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from pxe_pack.collector.fleet import Fleet

INTERVAL = 1.0  # seconds between two looks
AT_LEAST = 15.0  # seconds after which the summary is sent without a change: nodes become silent by time alone
MOST = 200  # open pages


class TooManyError(Exception):
    """There are as many open pages as there may be."""


class Changes:
    """Sends the summary to every subscriber when it has changed. `is_ending` is true once the collector is to stop."""

    def __init__(self, fleet: Fleet, *, is_ending: Callable[[], bool]) -> None:
        self._fleet, self._is_ending = fleet, is_ending
        self._subscribers: set[asyncio.Queue[str]] = set()

    def subscribe(self) -> AsyncIterator[str]:
        """The summaries as server-sent events (HTML, 9.2), the current one first. Raises TooManyError."""
        if len(self._subscribers) >= MOST:
            raise TooManyError
        queue: asyncio.Queue[str] = asyncio.Queue(1)
        return self._stream(queue)

    async def _stream(self, queue: asyncio.Queue[str]) -> AsyncIterator[str]:
        self._subscribers.add(queue)
        try:
            yield "retry: 2000\n\n"
            yield await self._event()
            while not self._is_ending():
                try:
                    async with asyncio.timeout(INTERVAL):
                        event = await queue.get()
                except TimeoutError:
                    continue
                yield event
        finally:
            self._subscribers.discard(queue)

    async def run(self) -> None:
        """Watch until cancelled."""
        seen, sent = -1, 0.0
        while True:
            await asyncio.sleep(INTERVAL)
            if not self._subscribers:
                continue
            try:
                now = await run_in_threadpool(self._fleet.revision)
                if now == seen and time.monotonic() < sent + AT_LEAST:
                    continue
                event = await self._event()
            except SQLAlchemyError:
                continue
            seen, sent = now, time.monotonic()
            for queue in self._subscribers:
                if queue.empty():  # else a slow page has not taken the last one yet, and gets the next
                    queue.put_nowait(event)

    async def _event(self) -> str:
        return f"data: {json.dumps(await run_in_threadpool(self._fleet.summary))}\n\n"
