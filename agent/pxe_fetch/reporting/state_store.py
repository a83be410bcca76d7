"""The state of the current run: changed by many threads, saved to the state file, summarised for systemd."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field, fields, replace
from datetime import UTC, datetime
from threading import Event, Lock, Thread

from pxe_fetch import __version__
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.quantity import amount, count, span
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.errors import RESTARTED, Result
from pxe_fetch.reporting import state_file
from pxe_fetch.reporting.journal import notify
from pxe_fetch.reporting.state_file import Document

SAVE_INTERVAL = 0.25  # seconds between two saves while artifacts change
SAVE_COST_FACTOR = 100  # … and at least so many times what the last one took: saving takes under 1 % of a run
HEARTBEAT = 1.0  # seconds between two messages to systemd
START_EXTENSION = 60  # seconds by which each of them extends TimeoutStartSec=
ACTIVE_PHASES = frozenset(("fetching", "verifying", "placing"))
STATUS_NAMES = 3  # artifacts named in the status line
MAX_NAMED = 8  # artifacts named in the one line of the result
_IN_PLACE = frozenset(("placed", "kept"))
FINAL_PHASES = frozenset(("placed", "kept", "skipped", "failed"))  # of an artifact
# What became of a unit. Other results are failures: failed, not-found, masked, bad-setting, error, unknown.
GOOD_RESULTS = {
    "starting": "is starting",
    "queued": "will start after this run",
    "started": "has started",
    "already-active": "was active already",
    "inactive": "is inactive",
    "skipped": "was skipped",
}


@mutable_record
class ArtifactState:
    """One artifact. Bytes are those of the download, before unpacking; times are of time.monotonic()."""

    name: str
    dest: str
    phase: str = "waiting"  # waiting, fetching, verifying, placing, placed, kept, skipped, failed
    required: bool
    bytes: int = 0  # in the part file, or in place
    total: int | None = None
    bytes_received: int = 0  # in this run, over all attempts: bytes fetched twice count twice
    attempts: int = 0
    url: str | None = None  # redacted; the mirror in use, or the one that served the last bytes
    final_url: str | None = None  # redacted; where its redirects led to, if the whole comes as one stream
    remark: str | None = None  # what is odd about its answer
    oci: str | None = None  # where a registry has it: the reference, with the digest of the manifest
    sha256: str | None = None
    error: str | None = None
    cause: str | None = None

    # _NOT_IN_FILE:
    mirrors: Mapping[str, int] = field(default_factory=dict)  # redacted, in the order of this node -> tier from 1
    dropped_mirrors: int = 0
    started: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far; 0.0 if it has not started."""
        return 0.0 if self.started is None else (self.ended or time.monotonic()) - self.started


_NOT_IN_FILE = frozenset(("mirrors", "dropped_mirrors", "started", "ended", "requested"))


@mutable_record
class UnitState:
    """One unit in the `start:` list of an artifact that is in place."""

    name: str
    artifact: str
    required: bool
    result: str = "starting"  # one of GOOD_RESULTS, or a failure
    message: str | None = None  # systemd's words
    seconds: float = 0.0  # from the request until that result
    requested: float = field(default_factory=time.monotonic)

    @property
    def sentence(self) -> str:
        """What became of the unit."""
        outcome = GOOD_RESULTS.get(self.result, "could not be started")
        return f"{self.name} {outcome}: {self.message.removesuffix('.')}" if self.message else f"{self.name} {outcome}"


def _entry(state: ArtifactState | UnitState) -> Document:
    """An artifact or a unit as state.json has it."""
    found = {one.name: getattr(state, one.name) for one in fields(state) if one.name not in _NOT_IN_FILE}
    return found | {"seconds": round(state.seconds, 3)}


class StateStore:
    """The run's state and its file. Change artifacts through `edit`; safe to use from several threads."""

    def __init__(self) -> None:
        self.run = os.environ.get("INVOCATION_ID") or os.urandom(16).hex()  # 32 hexadecimal digits
        self.phase = "locating"  # locating, fetching, done, failed
        self.exit_code: int | None = None
        self.cause: str | None = None
        self.message = ""
        self.config: dict[str, str] = {}
        self.node: dict[str, str] = {}
        self.started = datetime.now(tz=UTC).isoformat(timespec="seconds")
        self.started_monotonic = time.monotonic()
        self.failures = 0  # failed runs in a row, this one included
        self.artifacts: dict[str, ArtifactState] = {}  # by name; never changed, but replaced when the plan is known
        self.units: list[UnitState] = []
        self.read_error: str | None = None  # why the file of the run before this one could not be used
        self.write_error: str | None = None  # why the file could not be written the last time
        self._file = state_file.path()
        self.earlier: dict[str, str] = {}  # of runs before this one: destination -> the artifact installed there
        self._previous_failures = self._read_previous()
        self._ended_monotonic: float | None = None
        self._changed = False  # since the last save
        self._lock = Lock()  # of all above
        self._saving = Lock()  # of the file; never taken while `_lock` is held
        self._ended = Event()
        self._thread = Thread(target=self._keep_saving, name="state", daemon=True)

    def start(self) -> None:
        """Write the state file; from now on it follows each change, and systemd hears that the run is alive."""
        self.save()
        self._thread.start()

    def add_unit(self, unit: UnitState) -> None:
        """Add a unit that was asked to start; it may be changed until `finish`."""
        with self._lock:
            self.units.append(unit)
            self._changed = True

    def get(self, name: str) -> ArtifactState:
        """The state of the artifact `name`; one without `dest`, kept nowhere, for another download, as of digests."""
        return self.artifacts.get(name) or ArtifactState(name=name, dest="", phase="fetching", required=True)

    @contextmanager
    def edit(self, name: str) -> Iterator[ArtifactState]:
        """Lock the state and yield what `get` gives, to be changed."""
        with self._lock:
            yield self.get(name)
            self._changed = True

    def result(self, failures: Mapping[str, Result]) -> Result:
        """The result of a run whose artifacts have all ended; `failures` are those that failed, by name.

        The exit code is that of the first required artifact that failed, in the order of the configuration. A failure
        after which the unit restarts the agent comes before one after which it does not: the next run fetches what it
        can, and the final failure is reported once nothing else is left.
        """
        artifacts = self.artifacts.values()
        units = [one for one in self.units if one.result not in GOOD_RESULTS]
        # Not in RESTARTED: the next run would find the artifact in place, and start the same unit in the same way. To
        # try a unit again is up to its own Restart= (systemd.service(5)).
        failed = Result(exit_code=Exit.CANNOT_CREATE, cause="unit-failed")
        failures = {one.artifact: replace(failed, message=one.sentence) for one in units if one.required} | {**failures}
        required = [one for one in artifacts if one.required and one.name in failures]
        optional = [one for one in artifacts if not one.required and one.name in failures]
        elapsed = span(time.monotonic() - self.started_monotonic)
        if required:
            first = next((one for one in required if failures[one.name].exit_code in RESTARTED), required[0])
            failure = failures[first.name]
            others = [one.name for one in (*required, *optional) if one is not first]
            also = f"; also failed: {_join(others, ', ')}" if others else ""
            message = f"{first.name}: {failure.sentence}{also} ({self._in_place()}, {elapsed})"
            return Result(exit_code=failure.exit_code, cause=failure.cause, message=message)
        received = amount(sum(one.bytes_received for one in artifacts))
        summary = f"{self._in_place()}, {received} received, {elapsed}"
        if idle := [one.sentence for one in units if not one.required]:
            summary += f"; {_join(idle, '; ')}"
        if not optional:
            return Result(exit_code=Exit.DONE, message=summary)
        reasons = _join([f"{one.name}: {failures[one.name].sentence}" for one in optional], "; ")
        return Result(
            exit_code=Exit.DEGRADED,
            cause=failures[optional[0].name].cause,
            message=f"{summary}; without {count(len(optional), 'optional artifact')}: {reasons}",
        )

    def _in_place(self) -> str:
        """`3 of 5 artifacts in place (1 already), 2 not for this node`."""
        phases = [one.phase for one in self.artifacts.values()]
        kept, skipped = phases.count("kept"), phases.count("skipped")
        in_place, wanted = phases.count("placed") + kept, len(phases) - skipped
        already = f" ({kept} already)" if kept else ""
        others = f", {skipped} not for this node" if skipped else ""
        of = "" if in_place == wanted else f"{in_place} of "
        return f"{of}{count(wanted, 'artifact')} in place{already}{others}"

    def finish(self, result: Result) -> None:
        """Record how the run ended and save it. The state must not change afterwards."""
        self._ended.set()
        with self._lock:
            self.phase = "failed" if result.failed else "done"
            self.exit_code = int(result.exit_code)
            self.cause = result.cause
            self.message = result.message
            self._ended_monotonic = time.monotonic()
            self.failures = self._previous_failures + 1 if result.failed else 0
            for artifact in self.artifacts.values():
                if artifact.phase not in FINAL_PHASES and artifact.started is not None:
                    artifact.ended = self._ended_monotonic
        self.save()

    def document(self) -> Document:
        """The state as state.json has it."""
        keys = ("run", "phase", "exit_code", "cause", "message", "started", "failures", "config", "node")
        with self._lock:
            seconds = (self._ended_monotonic or time.monotonic()) - self.started_monotonic
            return {
                "version": state_file.VERSION,
                **{key: getattr(self, key) for key in keys},
                "agent": __version__,
                "final": self.exit_code is not None,
                "seconds": round(seconds, 3),
                "artifacts": [_entry(artifact) for artifact in self.artifacts.values()],
                "units": [_entry(unit) for unit in self.units],
                **({"earlier": earlier} if (earlier := self._still_there()) else {}),
            }

    def _still_there(self) -> list[Document]:
        """What runs before this one have installed, and this one has not."""
        taken = {artifact.dest for artifact in self.artifacts.values() if artifact.phase in _IN_PLACE}
        return [{"name": name, "dest": dest} for dest, name in self.earlier.items() if dest not in taken]

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
                if self.phase in state_file.ENDED:
                    with suppress(OSError):  # no state is better than one that says that the run goes on
                        self._file.unlink()

    def _read_previous(self) -> int:
        """Read what earlier runs have installed; how many in a row have failed or were killed, 0 if that is unknown."""
        try:
            document = state_file.read(self._file) if self._file else None
        except state_file.StateError as error:
            self.read_error = str(error)
            document = None
        with suppress(TypeError, ValueError, KeyError, AttributeError):  # its entries are damaged
            for one in [*document.get("earlier", ()), *document["artifacts"]] if document else ():
                is_in_place = one.get("phase", "placed") in _IN_PLACE and os.path.lexists(one["dest"])
                if is_in_place and one["dest"].startswith("/"):
                    self.earlier[one["dest"]] = str(one["name"])
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
            artifacts = self.artifacts.values()
            if self.phase == "locating":
                return "locating the configuration"
            ended = sum(artifact.phase in FINAL_PHASES for artifact in artifacts)
            size = sum(artifact.bytes for artifact in artifacts)
            active = [artifact.name for artifact in artifacts if artifact.phase in ACTIVE_PHASES]
            names = f": {', '.join(active[:STATUS_NAMES])}{', …' if len(active) > STATUS_NAMES else ''}"
            return f"{ended} of {len(artifacts)} artifacts, {amount(size)} so far{names if active else ''}"


def _join(items: Sequence[str], separator: str) -> str:
    """The first MAX_NAMED of `items` and how many more there are; each has a journal entry of its own."""
    more = len(items) - MAX_NAMED
    return separator.join([*items[:MAX_NAMED], *([f"and {count(more, 'other')}"] if more > 0 else [])])
