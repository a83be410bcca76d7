"""The state of the run, kept in its file and in systemd's status line while threads change it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from threading import Event, Lock, Thread

from pxe_fetch import __version__
from pxe_fetch.humanize import amount
from pxe_fetch.reporting import state_file
from pxe_fetch.reporting.notify import notify
from pxe_fetch.reporting.result import Result
from pxe_fetch.reporting.run_state import ENDED, ArtifactState, RunState, Value, earlier_failures

TICK = 1.0  # seconds between two looks at whether there is something new to write
SOON = 0.1  # seconds that lie at least between two writes
SHARE = 100  # and so many times what the last one took: with thousands of artifacts the file must not cost the run
EXTENSION = 60  # seconds more that systemd is asked for, at each tick

UNDER_WAY = frozenset(("fetching", "verifying", "placing"))
NAMED = 3  # artifacts in the status line


class Edit:
    """An artifact that `with` gives to be changed: a dozen times each, so nothing is made for it anew."""

    __slots__ = ("_store", "artifact")

    def __init__(self, store: StateStore, artifact: ArtifactState) -> None:
        self._store = store
        self.artifact = artifact

    def __enter__(self) -> ArtifactState:
        self._store.begin_edit()
        return self.artifact

    def __exit__(self, *_: object) -> None:
        self._store.end_edit()


class StateStore:
    """The run's state and its file. `edit` is the way to change it; safe to use from several threads."""

    def __init__(self) -> None:
        self.state = RunState(
            run=os.environ.get("INVOCATION_ID") or os.urandom(16).hex(),
            agent=__version__,
            started=datetime.now(tz=UTC).isoformat(timespec="seconds"),
            began=time.monotonic(),
        )
        self.trouble: str | None = None  # why the file is no longer written
        self._file = state_file.path()
        self._earlier_failures = earlier_failures(self._file)
        self._edits: dict[str, Edit] = {}
        self._lock = Lock()  # of the state
        self._writing = Lock()  # of the file
        self._changed = False
        self._due = 0.0  # monotonic; when the file may be written again
        self._over = Event()
        self._ticker = Thread(target=self._tick, name="store", daemon=True)

    def begin(self) -> None:
        """From now on the file is there, and systemd is told that the run goes on."""
        self.write()
        self._ticker.start()

    def add(self, artifacts: Iterable[ArtifactState]) -> None:
        """Take up `artifacts`, whose names are distinct."""
        with self._lock:
            for artifact in artifacts:
                self.state.artifacts.append(artifact)
                self._edits[artifact.name] = Edit(self, artifact)

    def find(self, name: str) -> ArtifactState | None:
        """The artifact `name`; None for what is fetched for the run's own use, a configuration or a list of digests."""
        edit = self._edits.get(name)
        return edit.artifact if edit else None

    def edit(self, name: str) -> Edit:
        """The artifact `name`, for as long as it takes to change it; the file follows soon. Raises KeyError."""
        return self._edits[name]

    def begin_edit(self) -> None:
        """Let nobody else change anything, or look at it."""
        self._lock.acquire()

    def end_edit(self) -> None:
        """Something has changed."""
        self._changed = True
        self._lock.release()
        if time.monotonic() >= self._due and not self._over.is_set() and self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def end(self, result: Result) -> None:
        """Write how the run ended. Nothing is written after it."""
        self._over.set()
        with self._lock:
            state, now = self.state, time.monotonic()
            state.phase = "failed" if result.failed else "done"
            state.exit_code = int(result.exit_code)
            state.cause = result.cause
            state.message = result.message
            state.seconds = now - state.began
            state.failures = self._earlier_failures + 1 if result.failed else 0
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
            self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        self._changed = False
        began = time.monotonic()
        try:
            state_file.write(json.dumps(self.document()) + "\n", file=self._file)
        except OSError as error:
            self.trouble = f"{self._file} cannot be written: {error.strerror}"
            self._file = None
        now = time.monotonic()
        self._due = now + max(SOON, SHARE * (now - began))

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            notify(f"STATUS={self._status()}", f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}")
            if self._changed and time.monotonic() >= self._due:
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
