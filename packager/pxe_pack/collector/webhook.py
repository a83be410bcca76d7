"""Tells a URL of each node whose run has failed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict

import requests
from starlette.concurrency import run_in_threadpool

from pxe_pack import https
from pxe_pack.collector.entries import Failure
from pxe_pack.collector.metrics import Metrics

QUEUED = 1000  # failures that may wait; more are dropped, and counted
ATTEMPTS = 3
TIMEOUT = 10.0  # seconds
_log = logging.getLogger(__name__)


class Webhook:
    """POSTs `{"text": sentence, "node": number, …}` for each failure; `text` is what chat servers show."""

    def __init__(self, url: str, metrics: Metrics) -> None:
        self._url, self._results = url, metrics.webhooks
        self._waiting: asyncio.Queue[Failure] = asyncio.Queue(QUEUED)

    def tell(self, failure: Failure) -> None:
        """Send this failure soon."""
        if not self._url:
            return
        try:
            self._waiting.put_nowait(failure)
        except asyncio.QueueFull:
            self._results.labels(result="dropped").inc()

    async def run(self) -> None:
        """Send failures until cancelled."""
        while True:
            failure = await self._waiting.get()
            for attempt in range(ATTEMPTS):
                if refusal := await run_in_threadpool(self._post, failure):
                    _log.warning("the webhook did not take a failure: %s", refusal)
                    await asyncio.sleep(2**attempt)
                    continue
                self._results.labels(result="sent").inc()
                break
            else:
                self._results.labels(result="failed").inc()

    def _post(self, failure: Failure) -> str:
        """Send one failure; why it was not taken, or ""."""
        name = failure.hostname or failure.key
        text = f"{name} failed at {failure.stage}: {failure.message or failure.cause}"
        try:
            with https.session() as session:
                answer = session.post(self._url, json={"text": text, **asdict(failure)}, timeout=TIMEOUT)
        except requests.RequestException as error:
            return type(error).__name__
        return "" if answer.ok else f"it answered {answer.status_code}"
