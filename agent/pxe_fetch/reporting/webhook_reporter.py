"""The run's result as it grows, told to whoever the configuration or the kernel command line names. Best effort.

A thread of its own tells each change of phase, the run's and its artifacts': always the newest document, so that a slow
server is told less often and not later. How the run ended is told apart from that, and waited for a little.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread

from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.deadline import Deadline, SystemClock
from pxe_fetch.errors import FetchError, PolicyError
from pxe_fetch.redact import redact
from pxe_fetch.reporting.state_store import StateStore
from pxe_fetch.transport.webhook import Webhook

LOOK = 1.0  # seconds between two looks at whether a phase has changed: at most so often a report goes out
INTERIM = 10.0  # seconds that a report on the way may take
# Seconds for the last report, both attempts together: on an emulated machine, which starts all its other services at
# this very moment, 5 were not enough for one.
FINAL = 15.0
HURRIED = 5.0  # the same for a run that was told to stop: systemd kills it after TimeoutStopSec=20s
AGAIN = 0.5  # seconds before the last report's second attempt
LEFT_BEHIND = 2.0  # seconds beyond all that for what nothing can interrupt, as the look-up of a name

ACCEPTED = range(200, 300)
_TRANSIENT = frozenset((408, 425, 429, *range(500, 600)))
_TIMEOUTS = Timeouts(connect=5.0, read=10.0)


class WebhookReporter:
    """Tells `url` how `store` stands, from `begin` on. Nothing here raises, and `finish` alone is waited for."""

    def __init__(self, url: str, *, store: StateStore, tls: Tls, proxy: Proxy) -> None:
        self.url = url
        self._store = store
        self._webhook = Webhook(tls=tls, proxy=proxy)
        self._over = Event()
        self._thread = Thread(target=self._keep_telling, name="report", daemon=True)

    def begin(self) -> None:
        """Report each phase from now on."""
        with suppress(RuntimeError):  # the unit's TasksMax= allows no more: the last report will do
            self._thread.start()

    def end(self) -> None:
        """Report nothing any more."""
        self._over.set()

    def finish(self, *, hurried: bool = False) -> str | None:
        """Report how the run ended. None, or a sentence that says why that was not taken.

        Waits FINAL seconds, or HURRIED ones, from the attempt to connect on, for two attempts together.
        """
        self.end()
        body = json.dumps(self._store.document()).encode()
        deadline = HURRIED if hurried else FINAL
        answers: SimpleQueue[str | None] = SimpleQueue()
        last = Thread(target=lambda: answers.put(self._insist(body, deadline)), name="last-report", daemon=True)
        try:
            last.start()
            return answers.get(timeout=deadline + LEFT_BEHIND)
        except RuntimeError as error:
            return f"{redact(self.url)}: {error}"
        except Empty:
            return f"{redact(self.url)} gave no answer within {deadline:g} s"

    def _keep_telling(self) -> None:
        told = None
        while not self._over.wait(LOOK):
            phases = self._store.phases()
            if phases == told:
                continue
            told = phases
            document = self._store.document()
            if document["final"]:
                return  # that is for `finish`
            self._attempt(json.dumps(document).encode(), within=INTERIM, stop=self._over)

    def _insist(self, body: bytes, seconds: float) -> str | None:
        """Post `body` within `seconds`, a second time where the first came to nothing; why it was not taken."""
        if self._thread.is_alive():
            self._thread.join(timeout=LOOK)  # it stops at once, mostly; an older report should not come after this one
        until = time.monotonic() + seconds
        never = Event()
        trouble, is_hopeless = self._attempt(body, within=seconds * 2 / 3, stop=never)
        if trouble is None or is_hopeless or time.monotonic() + AGAIN >= until:
            return trouble
        time.sleep(AGAIN)
        trouble, _ = self._attempt(body, within=until - time.monotonic(), stop=never)
        return f"{trouble} (asked twice)" if trouble else None

    def _attempt(self, body: bytes, *, within: float, stop: Event) -> tuple[str | None, bool]:
        """Post `body` once: why it was not taken, and whether it never will be."""
        clock = SystemClock()
        deadline = Deadline(clock=clock, stop=stop, at=clock.now() + within)
        shown = redact(self.url)
        try:
            status = self._webhook.post(self.url, body, kind="application/json", timeouts=_TIMEOUTS, deadline=deadline)
        except PolicyError as error:
            return f"{shown}: {error}", True
        except FetchError as error:
            return f"{shown}: {error}", not error.transient and error.reference != "deadline"
        except Exception as error:  # nothing here may fail the run
            return f"{shown}: {type(error).__name__}", True
        if status in ACCEPTED:
            return None, False
        return f"{shown} answered {status}", status not in _TRANSIENT
