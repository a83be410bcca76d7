"""The state of the run, kept in its file and in systemd's status line while threads change it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Lock, Thread

from pxe_fetch import __version__
from pxe_fetch.reporting import statefile
from pxe_fetch.reporting.notify import notify
from pxe_fetch.reporting.outcome import Outcome
from pxe_fetch.reporting.state import ENDED, ArtifactState, RunState, Value, earlier_failures
from pxe_fetch.wording import amount

TICK = 1.0  # seconds between two looks at whether there is something new to write
SOON = 0.1  # seconds that lie at least between two writes
EXTENSION = 60  # seconds more that systemd is asked for, at each tick

UNDER_WAY = frozenset(("fetching", "verifying", "placing"))
NAMED = 3  # artifacts in the status line


class Ledger:
    """The run's state and its file. `edit` is the way to change it; safe to use from several threads."""

    def __init__(self) -> None:
        self.state = RunState(
            run=os.environ.get("INVOCATION_ID") or os.urandom(16).hex(),
            agent=__version__,
            started=datetime.now(tz=UTC).isoformat(timespec="seconds"),
            began=time.monotonic(),
        )
        self.trouble: str | None = None  # why the file is no longer written
        self._file = statefile.path()
        self._earlier_failures = earlier_failures(self._file)
        self._artifacts: dict[str, ArtifactState] = {}
        self._lock = Lock()  # of the state
        self._writing = Lock()  # of the file
        self._changed = False
        self._written = 0.0
        self._over = Event()
        self._ticker = Thread(target=self._tick, name="ledger", daemon=True)

    def begin(self) -> None:
        """From now on the file is there, and systemd is told that the run goes on."""
        self.write()
        self._ticker.start()

    def add(self, artifacts: Iterable[ArtifactState]) -> None:
        """Take up `artifacts`, whose names are distinct."""
        with self._lock:
            for artifact in artifacts:
                self.state.artifacts.append(artifact)
                self._artifacts[artifact.name] = artifact

    def find(self, name: str) -> ArtifactState | None:
        """The artifact `name`; None for what is fetched for the run's own use, a configuration or a list of digests."""
        return self._artifacts.get(name)

    @contextmanager
    def edit(self, name: str) -> Iterator[ArtifactState]:
        """The artifact `name`, for as long as it takes to change it; the file follows soon. Raises KeyError."""
        with self._lock:
            yield self._artifacts[name]
            self._changed = True
        if time.monotonic() - self._written >= SOON and not self._over.is_set():
            self.write()

    def end(self, outcome: Outcome) -> None:
        """Write how the run ended. Nothing is written after it."""
        self._over.set()
        with self._lock:
            state, now = self.state, time.monotonic()
            state.phase = "failed" if outcome.failed else "done"
            state.exit_code = int(outcome.exit_code)
            state.cause = outcome.cause
            state.message = outcome.message
            state.seconds = now - state.began
            state.failures = self._earlier_failures + 1 if outcome.failed else 0
            for artifact in state.artifacts:
                if artifact.phase not in ENDED and artifact.began is not None:
                    artifact.ended = now
        self.write()

    def phases(self) -> tuple[str, ...]:
        """The run's phase, and each artifact's."""
        with self._lock:
            return (self.state.phase, *(artifact.phase for artifact in self.state.artifacts))

    def document(self) -> dict[str, Value]:
        """The state as it is now."""
        with self._lock:
            return self.state.document()

    def write(self) -> None:
        """Have the file say what is so now. A file that cannot be written is `trouble`, not an error."""
        with self._writing:
            if self._file is None:
                return
            self._changed = False
            self._written = time.monotonic()
            try:
                statefile.write(json.dumps(self.document()) + "\n", file=self._file)
            except OSError as error:
                self.trouble = f"{self._file} cannot be written: {error.strerror}"
                self._file = None

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            notify(f"STATUS={self._status()}", f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}")
            if self._changed:
                self.write()

    def _status(self) -> str:
        """One line for `systemctl status`."""
        with self._lock:
            artifacts = self.state.artifacts
            if self.state.phase == "locating":
                return "looking for the configuration"
            ended = sum(artifact.phase in ENDED for artifact in artifacts)
            here = sum(artifact.bytes for artifact in artifacts)
            now = [artifact.name for artifact in artifacts if artifact.phase in UNDER_WAY]
            names = f": {', '.join(now[:NAMED])}{', …' if len(now) > NAMED else ''}" if now else ""
            return f"{ended} of {len(artifacts)} artifacts, {amount(here)} so far{names}"
