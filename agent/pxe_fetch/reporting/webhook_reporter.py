"""The run's state POSTed to `report.url` (or pxe-fetch.report=) as JSON. Best effort: nothing here fails a run.

A thread posts the current document whenever a phase has changed; a slow server gets fewer of them, not older ones. The
final document is posted at the end of the run, which waits for it a little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread

from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.contract.url import redact
from pxe_fetch.deadline import Clock, Deadline
from pxe_fetch.errors import DeadlineError, FetchError
from pxe_fetch.reporting.journal import Journal
from pxe_fetch.reporting.state_file import ENDED
from pxe_fetch.reporting.state_store import StateStore
from pxe_fetch.transport import Request
from pxe_fetch.transport.http import HttpTransport

POLL_INTERVAL = 1.0  # seconds; phases that change within it share a report
INTERIM_TIMEOUT = 10.0  # seconds for one interim report
# Seconds for the final report with its retry: on an emulated machine, which starts all its other services at this
# moment, 5 were not enough.
FINAL_TIMEOUT = 15.0
STOPPED_TIMEOUT = 0.5  # seconds for it in a run that was stopped: who stops it waits for that
JOURNAL_SIZE = 64 << 10  # bytes of the journal's last lines in the report of a failure
RETRY_DELAY = 0.5  # seconds before the final report is retried
UNINTERRUPTIBLE = 2.0  # seconds more for what no timeout interrupts, as a name lookup

ACCEPTED = range(200, 300)
_TRANSIENT = frozenset((408, 425, 429, *range(500, 600)))
_TIMEOUTS = Timeouts(connect=5.0, read=10.0)


class WebhookReporter:
    """Posts the state in `store` to `url`, from `start` on. No method raises, and only `finish` blocks."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str], store: StateStore, journal: Journal, tls: Tls, proxy: Proxy
    ) -> None:
        self.url = url
        self._headers = {**headers, "Content-Type": "application/json"}
        self._store, self._journal = store, journal
        self._webhook = HttpTransport(tls=tls, proxy=proxy)
        self._stop = Event()
        self._thread = Thread(target=self._post_changes, name="report", daemon=True)

    def start(self) -> None:
        """Post each change of phase from now on."""
        with suppress(RuntimeError):  # the unit's TasksMax= allows no more threads: then only the final report is sent
            self._thread.start()

    def stop(self) -> None:
        """Post nothing more."""
        self._stop.set()

    def finish(self, *, stopped: bool = False) -> str | None:
        """Post the final document; None, or a sentence that says why it was not accepted.

        Blocks for FINAL_TIMEOUT + UNINTERRUPTIBLE seconds at most, or STOPPED_TIMEOUT if the run was `stopped`.
        """
        self.stop()
        timeout = STOPPED_TIMEOUT if stopped else FINAL_TIMEOUT
        answers: SimpleQueue[str | None] = SimpleQueue()
        try:
            Thread(target=lambda: answers.put(self._post_final(timeout)), name="final-report", daemon=True).start()
            return answers.get(timeout=timeout + (0 if stopped else UNINTERRUPTIBLE))
        except RuntimeError as error:
            return f"{redact(self.url)}: {error}"
        except Empty:
            return f"{redact(self.url)} did not answer within {timeout:g} s"

    def _post_changes(self) -> None:
        posted = None
        while not self._stop.wait(POLL_INTERVAL):
            state = self._store
            if state.phase in ENDED:
                return  # `finish` posts it
            phases = [state.phase, *(one.phase for one in state.artifacts.values())]
            if phases != posted:
                posted = phases
                self._post(timeout=INTERIM_TIMEOUT, stop=self._stop)

    def _post_final(self, timeout: float) -> str | None:
        """Post the state within `timeout` seconds, twice if that may help; why it was not accepted."""
        if self._thread.is_alive():
            self._thread.join(timeout=timeout / 10)  # an interim report must not arrive after the final one
        end = time.monotonic() + timeout
        failure, is_final = self._post(timeout=timeout * 2 / 3, stop=Event())
        if failure is None or is_final or time.monotonic() + RETRY_DELAY >= end:
            return failure
        time.sleep(RETRY_DELAY)
        failure, _ = self._post(timeout=end - time.monotonic(), stop=Event())
        return f"{failure} (two attempts)" if failure else None

    def _post(self, *, timeout: float, stop: Event) -> tuple[str | None, bool]:
        """Post the state once: why it was not accepted, and whether another attempt would fail too."""
        deadline = Deadline(clock=Clock(), stop=stop, at=time.monotonic() + timeout)
        request = Request(url=self.url, headers=self._headers, timeouts=_TIMEOUTS, deadline=deadline)
        document, url = self._store.document(), redact(self.url)
        if self._store.phase == "failed":
            document["journal"] = lines = list(self._journal.recent)
            while len(json.dumps(lines)) > JOURNAL_SIZE:
                del lines[0]
        try:
            status = self._webhook.post(request, json.dumps(document).encode())
        except FetchError as error:
            return f"{url}: {error}", not (error.transient or isinstance(error, DeadlineError))
        except Exception as error:  # a report must not fail the run
            return f"{url}: {type(error).__name__}", True
        return (None, False) if status in ACCEPTED else (f"{url} answered {status}", status not in _TRANSIENT)
