"""The run's account of itself: every event goes to the journal, the state file and systemd from here."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Event, Lock, Thread

from pxe_fetch import __version__, statefile
from pxe_fetch.contract.cmdline import KernelArgumentError
from pxe_fetch.contract.paths import MessageId
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.errors import FetchError
from pxe_fetch.journal import DEBUG, ERROR, INFO, NOTICE, WARNING, Journal
from pxe_fetch.locate import Found
from pxe_fetch.notify import notify
from pxe_fetch.outcome import Outcome
from pxe_fetch.plan import Plan, Transfer
from pxe_fetch.state import ArtifactState, RunState, Value, earlier_failures
from pxe_fetch.transfer import Received
from pxe_fetch.wording import amount, count, span

TICK = 1.0  # seconds between two looks at whether there is something new to write
SOON = 0.1  # seconds that lie at least between two writes
EXTENSION = 60  # seconds more that systemd is asked for, at each tick

UNDER_WAY = frozenset(("fetching", "verifying", "placing"))
ENDED = frozenset(("placed", "kept", "skipped", "failed"))


class Account:
    """What happened so far, and who is told. Implements the engine's Events; safe to use from several threads."""

    def __init__(self, *, journal: Journal) -> None:
        self.state = RunState(
            run=os.environ.get("INVOCATION_ID") or os.urandom(16).hex(),
            agent=__version__,
            started=datetime.now(tz=UTC).isoformat(timespec="seconds"),
            began=time.monotonic(),
        )
        self._journal = journal
        self._file = statefile.path()
        self._earlier_failures = earlier_failures(self._file)
        self._artifacts: dict[str, ArtifactState] = {}
        self._at: dict[str, int] = {}  # where each artifact's transfer stands, in bytes of the artifact
        self._lock = Lock()  # of everything above
        self._writing = Lock()  # of the file
        self._changed = False
        self._written = 0.0
        self._over = Event()
        self._ticker = Thread(target=self._tick, name="account", daemon=True)

    # The run

    def begin(self) -> None:
        """Begin to tell: the state file is there from now on, and systemd waits."""
        self._write()
        self._ticker.start()

    def configuration(self, found: Found) -> None:
        """The configuration that counts is known."""
        self.state.config = {"source": found.source, "path_or_url": found.path_or_url, "sha256": found.sha256}
        self._say(
            f"configuration: {found.reason}",
            message_id=MessageId.CONFIG_FOUND,
            url=found.path_or_url,
            sha256=found.sha256,
            phase="locating",
        )

    def identity(self, summary: Mapping[str, str]) -> None:
        """Which node this is."""
        self.state.node = summary

    def planned(self, plan: Plan, *, parallel: int) -> None:
        """What will be done is known."""
        with self._lock:
            for order in plan.orders:
                sha256 = order.digest.hex if order.digest and order.digest.algorithm == "sha256" else None
                self._add(
                    ArtifactState(
                        name=order.name, dest=str(order.dest), required=order.required, total=order.size, sha256=sha256
                    )
                )
            for artifact in (*plan.skipped, *(artifact for artifact, _ in plan.failed)):
                self._add(ArtifactState(name=artifact.name, dest=artifact.dest, required=artifact.required))
            for artifact in plan.skipped:
                self._artifacts[artifact.name].phase = "skipped"
        self._phase("fetching")
        known = sum(order.size or 0 for order in plan.orders)
        others = f"; not for this node: {', '.join(one.name for one in plan.skipped)}" if plan.skipped else ""
        size = f" ({amount(known)})" if known and all(order.size is not None for order in plan.orders) else ""
        self._say(
            f"{count(len(plan.orders), 'artifact')} to bring{size}, up to {parallel} at once{others}",
            message_id=MessageId.STATUS,
            phase="fetching",
        )

    def finish(self, outcome: Outcome) -> None:
        """The run is over: nothing changes from now on."""
        self._over.set()
        with self._lock:
            self.state.phase = "failed" if outcome.exit_code not in {0, 2} else "done"
            self.state.exit_code = int(outcome.exit_code)
            self.state.cause = outcome.cause
            self.state.message = outcome.message
            self.state.seconds = time.monotonic() - self.state.began
            self.state.failures = 0 if self.state.phase == "done" else self._earlier_failures + 1
            for artifact in self.state.artifacts:
                if artifact.phase not in ENDED:
                    artifact.ended = time.monotonic() if artifact.began else None
        self._write()
        if self._journal.is_plain:
            return  # the console's line goes to the same terminal
        failed = self.state.phase == "failed"
        priority = ERROR if failed else WARNING if outcome.exit_code else INFO
        self._say(
            f"{self.state.phase}: {outcome.message}",
            priority=priority,
            message_id=MessageId.FAILED if failed else MessageId.DONE,
            error=outcome.cause,
            bytes=sum(artifact.bytes_received for artifact in self.state.artifacts),
            phase=self.state.phase,
            exit_code=int(outcome.exit_code),
        )

    def remark(self, message: str, *, priority: int = NOTICE) -> None:
        """Anything else that is worth a line."""
        self._say(message, priority=priority, message_id=MessageId.STATUS)

    def debug(self, message: str) -> None:
        """A line that only pxe-fetch.debug shows."""
        self._say(message, priority=DEBUG, message_id=MessageId.STATUS)

    def show_debug(self) -> None:
        """Have the lines of `debug` shown from now on."""
        self._journal.debug = True

    def explain(self, error: Exception) -> None:
        """What ended the run, in full where the one line of the outcome is not all there is to say."""
        if isinstance(error, ProblemError):
            for problem in error.problems:
                hint = f" (hint: {problem.hint})" if problem.hint else ""
                label = f": {problem.label}" if problem.label else ""
                self._say(
                    f"{problem.severity}: {problem}{label}{hint}",
                    priority=ERROR,
                    message_id=MessageId.FAILED,
                    error=problem.reference,
                    phase=self.state.phase,
                )
        elif not isinstance(error, (FetchError, KernelArgumentError)):
            self.debug("".join(traceback.format_exception(error)))

    def document(self) -> dict[str, Value]:
        """The state as it is now."""
        with self._lock:
            return self.state.document()

    # One artifact, as the run sees it

    def checking(self, name: str) -> None:
        """Its turn has come."""
        self._change(name, lambda artifact: setattr(artifact, "began", time.monotonic()))

    def kept(self, transfer: Transfer) -> None:
        """The destination was right already."""
        artifact = self._end(transfer.name, "kept")
        if transfer.extract == "none" and transfer.dest.exists():
            artifact.bytes = artifact.total = transfer.dest.lstat().st_size
        self._say(
            f"{transfer.name}: {transfer.dest} is right already and stays",
            message_id=MessageId.KEPT,
            artifact=transfer.name,
            sha256=artifact.sha256,
            phase="kept",
        )

    def received(self, name: str, received: Received) -> None:
        """Its bytes are here and verified."""
        with self._lock:
            artifact = self._artifacts[name]
            artifact.phase = "placing"
            artifact.attempts = received.attempts
            artifact.bytes_received = received.bytes_received
            artifact.url = received.url
        self._soon()

    def placed(self, transfer: Transfer) -> None:
        """It is where it belongs."""
        artifact = self._end(transfer.name, "placed")
        took = (artifact.ended or 0) - (artifact.began or 0)
        what = "unpacked at" if transfer.extract == "tar" else "placed at"
        mode = "" if transfer.mode is None else f", mode {transfer.mode:04o}"
        tries = f" in {count(artifact.attempts, 'attempt')}" if artifact.attempts > 1 else ""
        self._say(
            f"{transfer.name}: {what} {transfer.dest}{mode}: {amount(artifact.bytes)} from {artifact.url}"
            f"{tries}, {span(took)}",
            message_id=MessageId.PLACED,
            artifact=transfer.name,
            url=artifact.url,
            bytes=artifact.bytes,
            attempt=artifact.attempts,
            sha256=artifact.sha256,
            phase="placed",
        )

    def failed(self, name: str, outcome: Outcome) -> None:
        """It is not to be had in this run."""
        artifact = self._end(name, "failed", error=outcome.message, cause=outcome.cause)
        need = "" if artifact.required else "; it is optional, so the run goes on without it"
        self._say(
            f"{name}: failed: {outcome.message}{need}",
            priority=ERROR if artifact.required else WARNING,
            message_id=MessageId.FAILED,
            artifact=name,
            url=artifact.url,
            attempt=artifact.attempts,
            bytes=artifact.bytes,
            total=artifact.total,
            error=outcome.message,
            phase="failed",
            cause=outcome.cause,
        )

    # One artifact, as the engine sees it: pxe_fetch.events.Events

    def started(self, name: str, *, url: str, offset: int, total: int | None) -> None:
        with self._lock:
            artifact = self._artifacts.get(name)
            if artifact is None:
                return
            first = artifact.phase != "fetching"
            artifact.phase = "fetching"
            artifact.url = url
            artifact.bytes = offset
            artifact.total = artifact.total if total is None else total
            artifact.attempts = max(artifact.attempts, 1)
            self._at[name] = offset
        self._soon()
        if first:
            size = "" if total is None else f" ({amount(total)})"
            self._say(
                f"{name}: fetching from {url}{size}",
                message_id=MessageId.START,
                artifact=name,
                url=url,
                bytes=offset,
                total=total,
                phase="fetching",
            )

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        artifact = self._artifacts.get(name)
        whole = f" of {amount(artifact.total)}" if artifact and artifact.total else ""
        self._say(
            f"{name}: {amount(offset)}{whole} are here already; going on from there at {url}",
            message_id=MessageId.RESUMED,
            artifact=name,
            url=url,
            bytes=offset,
            total=artifact.total if artifact else None,
            phase="fetching",
        )

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        with self._lock:
            artifact = self._artifacts.get(name)
            if artifact is None:
                return
            artifact.bytes_received += max(received - self._at.get(name, 0), 0)
            self._at[name] = received
            artifact.bytes = received
            artifact.total = artifact.total if total is None else total
            self._changed = True

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        with self._lock:
            if artifact := self._artifacts.get(name):
                artifact.attempts = max(artifact.attempts, attempt + 1)
                artifact.error = error
                artifact.phase = "fetching"
            self._changed = True
        elsewhere = "" if next_url == url else f" at {next_url}"
        self._say(
            f"{name}: attempt {attempt} at {url} failed: {error}; trying again{elsewhere} in {span(wait_seconds)}",
            priority=WARNING,
            message_id=MessageId.RETRYING,
            artifact=name,
            url=url,
            attempt=attempt,
            error=error,
            http_status=status,
            next_retry_ms=round(wait_seconds * 1000),
            phase="fetching",
        )

    def mirror_dropped(self, name: str, *, url: str, reason: str) -> None:
        self._say(
            f"{name}: {url} is not asked again: {reason}",
            priority=WARNING,
            message_id=MessageId.MIRROR_DROPPED,
            artifact=name,
            url=url,
            error=reason,
            phase="fetching",
        )

    def verifying(self, name: str, *, total: int) -> None:
        with self._lock:
            if artifact := self._artifacts.get(name):
                artifact.phase = "verifying"
            self._changed = True
        self.debug(f"{name}: reading {amount(total)} again to verify them")

    def verified(self, name: str, *, digest: str, total: int) -> None:
        with self._lock:
            if artifact := self._artifacts.get(name):
                artifact.bytes = artifact.total = total
                artifact.error = None  # what went wrong on the way has been overcome; the journal has it
                artifact.sha256 = digest.partition(":")[2] if digest.startswith("sha256:") else artifact.sha256
            self._changed = True
        self._say(
            f"{name}: all {amount(total)} have the right digest, {digest}",
            message_id=MessageId.VERIFIED,
            artifact=name,
            bytes=total,
            total=total,
            sha256=digest.partition(":")[2],
            phase="verifying",
        )

    # How it is told

    def _add(self, artifact: ArtifactState) -> None:
        self.state.artifacts.append(artifact)
        self._artifacts[artifact.name] = artifact

    def _change(self, name: str, change: Callable[[ArtifactState], None]) -> None:
        with self._lock:
            change(self._artifacts[name])
        self._soon()

    def _end(self, name: str, phase: str, *, error: str | None = None, cause: str | None = None) -> ArtifactState:
        with self._lock:
            artifact = self._artifacts[name]
            artifact.phase = phase
            artifact.ended = time.monotonic()
            artifact.error = error
            artifact.cause = cause
        self._soon()
        return artifact

    def _phase(self, phase: str) -> None:
        self.state.phase = phase
        self._write()

    def _say(self, message: str, *, priority: int = INFO, message_id: str = "", **fields: str | float | None) -> None:
        self._journal.send(message, priority=priority, message_id=message_id, run=self.state.run, **fields)

    def _soon(self) -> None:
        """Write now, unless that was done a moment ago: the ticker writes it then."""
        self._changed = True
        if time.monotonic() - self._written >= SOON and not self._over.is_set():
            self._write()

    def _write(self) -> None:
        if self._file is None or not self._writing.acquire(timeout=TICK):
            return
        try:
            self._changed = False
            self._written = time.monotonic()
            statefile.write(json.dumps(self.document()) + "\n", file=self._file)
        except OSError as error:
            self.debug(f"{self._file} cannot be written: {error.strerror}")
            self._file = None  # the journal has it all; say it once
        finally:
            self._writing.release()

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            notify(f"STATUS={self._status()}", f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}")
            if self._changed:
                self._write()

    def _status(self) -> str:
        """One line for `systemctl status`."""
        with self._lock:
            if self.state.phase == "locating":
                return "looking for the configuration"
            ended = sum(artifact.phase in ENDED for artifact in self.state.artifacts)
            here = sum(artifact.bytes for artifact in self.state.artifacts)
            now = [artifact.name for artifact in self.state.artifacts if artifact.phase in UNDER_WAY]
            names = f": {', '.join(now[:3])}{', …' if len(now) > 3 else ''}" if now else ""  # noqa: PLR2004
            return f"{ended} of {len(self.state.artifacts)} artifacts, {amount(here)} so far{names}"
