"""The state of the current run: changed by many threads, saved to the state file, summarised for systemd."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Event, Lock, Thread

from pxe_fetch import __version__
from pxe_fetch.humanize import amount
from pxe_fetch.reporting import state_file
from pxe_fetch.reporting.journal import notify
from pxe_fetch.reporting.result import Result
from pxe_fetch.reporting.state_file import FINAL_PHASES, ArtifactState, Document, RunState, UnitState

SAVE_INTERVAL = 0.25  # seconds between two saves while artifacts change
SAVE_COST_FACTOR = 100  # … and at least so many times what the last one took: saving takes under 1 % of a run
HEARTBEAT = 1.0  # seconds between two messages to systemd
START_EXTENSION = 60  # seconds by which each of them extends TimeoutStartSec=
ACTIVE_PHASES = frozenset(("fetching", "verifying", "placing"))
STATUS_NAMES = 3  # artifacts named in the status line


class StateStore:
    """The run's state and its file. Change artifacts through `edit`; safe to use from several threads."""

    def __init__(self) -> None:
        self.state = RunState(
            run=os.environ.get("INVOCATION_ID") or os.urandom(16).hex(),
            agent=__version__,
            started=datetime.now(tz=UTC).isoformat(timespec="seconds"),
            started_monotonic=time.monotonic(),
        )
        self.read_error: str | None = None  # why the file of the run before this one could not be used
        self.write_error: str | None = None  # why the file could not be written the last time
        self._file = state_file.path()
        self._previous_failures = self._failures_before()
        self._artifacts: dict[str, ArtifactState] = {}
        self._changed = False  # since the last save
        self._lock = Lock()  # of all above
        self._saving = Lock()  # of the file; never taken while `_lock` is held
        self._ended = Event()
        self._thread = Thread(target=self._keep_saving, name="state", daemon=True)

    def start(self) -> None:
        """Write the state file; from now on it follows each change, and systemd hears that the run is alive."""
        self.save()
        self._thread.start()

    def add(self, artifact: ArtifactState) -> None:
        """Add an artifact of the plan. Its name must be new."""
        with self._lock:
            self.state.artifacts.append(artifact)
            self._artifacts[artifact.name] = artifact

    def add_unit(self, unit: UnitState) -> None:
        """Add a unit that was asked to start; it may be changed until `finish`."""
        with self._lock:
            self.state.units.append(unit)
            self._changed = True

    def get(self, name: str) -> ArtifactState:
        """The state of the artifact `name`; one without `dest`, kept nowhere, for another download, as of digests."""
        return self._artifacts.get(name) or ArtifactState(name=name, dest="", phase="fetching", required=True)

    @contextmanager
    def edit(self, name: str) -> Iterator[ArtifactState]:
        """Lock the state and yield what `get` gives, to be changed."""
        with self._lock:
            yield self.get(name)
            self._changed = True

    def finish(self, result: Result) -> None:
        """Record how the run ended and save it. The state must not change afterwards."""
        self._ended.set()
        with self._lock:
            state, now = self.state, time.monotonic()
            state.phase = "failed" if result.failed else "done"
            state.exit_code = int(result.exit_code)
            state.cause = result.cause
            state.message = result.message
            state.ended_monotonic = now
            state.failures = self._previous_failures + 1 if result.failed else 0
            for artifact in state.artifacts:
                if artifact.phase not in FINAL_PHASES and artifact.started is not None:
                    artifact.ended = now
        self.save()

    def document(self) -> Document:
        """The state as state.json has it."""
        with self._lock:
            return self.state.document()

    def save(self) -> None:
        """Write the state file now. Never raises OSError: `write_error` then says what went wrong."""
        with self._saving:
            if self._file is None:
                return
            self._changed = False
            try:
                state_file.write(self.document(), file=self._file)
                self.write_error = None
            except OSError as error:  # the next save may succeed: a full disk gets room again
                self.write_error = f"cannot write {self._file}: {error.strerror}"
                if self.state.phase in state_file.ENDED:
                    with suppress(OSError):  # no state is better than one that says that the run goes on
                        self._file.unlink()

    def _failures_before(self) -> int:
        """How many runs in a row have failed or were killed before this one; 0 if that is unknown."""
        try:
            document = state_file.read(self._file) if self._file else None
        except state_file.StateError as error:
            self.read_error = str(error)
            document = None
        return int(document["failures"]) + (document["phase"] not in state_file.ENDED) if document else 0

    def _keep_saving(self) -> None:
        next_save = next_heartbeat = 0.0
        while not self._ended.wait(SAVE_INTERVAL):
            now = time.monotonic()
            if self._changed and now >= next_save:
                self.save()
                saved = time.monotonic()
                next_save = saved + SAVE_COST_FACTOR * (saved - now)
            if now >= next_heartbeat:
                next_heartbeat = now + HEARTBEAT
                notify(f"STATUS={self._status()}", f"EXTEND_TIMEOUT_USEC={START_EXTENSION * 1_000_000}")

    def _status(self) -> str:
        """The line for `systemctl status`."""
        with self._lock:
            artifacts = self.state.artifacts
            if self.state.phase == "locating":
                return "locating the configuration"
            ended = sum(artifact.phase in FINAL_PHASES for artifact in artifacts)
            size = sum(artifact.bytes for artifact in artifacts)
            active = [artifact.name for artifact in artifacts if artifact.phase in ACTIVE_PHASES]
            names = f": {', '.join(active[:STATUS_NAMES])}{', …' if len(active) > STATUS_NAMES else ''}"
            return f"{ended} of {len(artifacts)} artifacts, {amount(size)} so far{names if active else ''}"
