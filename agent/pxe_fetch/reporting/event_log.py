"""The run's account of itself: each event becomes a line of the journal and a change of the state."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from pxe_fetch.config_source import Found
from pxe_fetch.contract.cmdline import KernelArgumentError
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.paths import MessageId
from pxe_fetch.contract.problem import ProblemError, show_all
from pxe_fetch.download.download import DownloadResult
from pxe_fetch.errors import FetchError
from pxe_fetch.humanize import amount, count, span
from pxe_fetch.plan import Plan, Transfer
from pxe_fetch.redact import redact
from pxe_fetch.reporting.journal import DEBUG, ERROR, INFO, NOTICE, WARNING
from pxe_fetch.reporting.progress import Progress
from pxe_fetch.reporting.result import Result
from pxe_fetch.reporting.run_state import ArtifactState

# Artifacts from which on only the end of each is told, and what goes wrong: journald drops lines of a service that
# writes more than RateLimitBurst= of them in a moment (journald.conf(5)), and the ones that matter would be among them.
MANY = 100


class EventLog(Progress):
    """What happened so far, and who is told. Safe to use from several threads."""

    # The run

    def configuration(self, found: Found) -> None:
        """The configuration that counts is known."""
        self._store.state.config = {"source": found.source, "path_or_url": found.path_or_url, "sha256": found.sha256}
        self._say(
            f"configuration: {found.reason}",
            message_id=MessageId.CONFIG_FOUND,
            url=found.path_or_url,
            sha256=found.sha256,
            phase="locating",
        )

    def identity(self, summary: Mapping[str, str]) -> None:
        """Which node this is."""
        self._store.state.node = summary

    def planned(self, plan: Plan, *, config: FetchConfig) -> None:
        """What will be done is known."""
        artifacts = [
            ArtifactState(
                name=transfer.name,
                dest=str(transfer.dest),
                required=transfer.required,
                total=transfer.size,
                mirrors=tuple(map(redact, transfer.urls)) if len(transfer.urls) > 1 else (),
                sha256=transfer.digest.hex if transfer.digest and transfer.digest.algorithm == "sha256" else None,
            )
            for transfer in plan.transfers
        ]
        artifacts += [
            ArtifactState(name=one.name, dest=one.dest, required=one.required, phase="skipped") for one in plan.skipped
        ]
        artifacts += [ArtifactState(name=one.name, dest=one.dest, required=one.required) for one, _ in plan.failed]
        places = {artifact.name: index for index, artifact in enumerate(config.artifacts)}
        self._store.add(sorted(artifacts, key=lambda artifact: places[artifact.name]))
        self._store.state.phase = "fetching"
        self._store.write()
        known = sum(transfer.size or 0 for transfer in plan.transfers)
        others = f"; not for this node: {', '.join(one.name for one in plan.skipped)}" if plan.skipped else ""
        size = f" ({amount(known)})" if known and all(transfer.size is not None for transfer in plan.transfers) else ""
        if len(plan.transfers) > MANY:
            self._usual = DEBUG
            others += "; of so many, only the end of each is told, and what goes wrong"
        self._say(
            f"{count(len(plan.transfers), 'artifact')} to bring{size}, up to {config.parallel} at once{others}",
            message_id=MessageId.STATUS,
            phase="fetching",
        )

    def finish(self, result: Result) -> None:
        """The run is over: nothing changes from now on."""
        self._store.end(result)
        if self._store.trouble:
            self.debug(self._store.trouble)
        if self._journal.is_plain:
            return  # the console's line goes to the same terminal
        state = self._store.state
        self._say(
            f"{state.phase}: {result.message}",
            priority=ERROR if result.failed else WARNING if result.exit_code else INFO,
            message_id=MessageId.FAILED if result.failed else MessageId.DONE,
            error=result.message if result.exit_code else None,
            cause=result.cause,
            bytes=sum(artifact.bytes_received for artifact in state.artifacts),
            phase=state.phase,
            exit_code=int(result.exit_code),
        )

    def remark(self, message: str, *, priority: int = NOTICE) -> None:
        """Anything else that is worth a line."""
        self._say(message, priority=priority, message_id=MessageId.STATUS)

    def debug(self, message: str) -> None:
        """A line that only pxe-fetch.debug shows."""
        self.remark(message, priority=DEBUG)

    def show_debug(self) -> None:
        """Have the lines of `debug` shown from now on."""
        self._journal.debug = True

    def explain(self, error: Exception) -> None:
        """What ended the run, in full where the one line of the result is not all there is to say."""
        if isinstance(error, ProblemError) and self._journal.is_plain:
            self._journal.show(show_all(error.problems))
        elif isinstance(error, ProblemError):
            for problem in error.problems:
                hint = f" (hint: {problem.hint})" if problem.hint else ""
                label = f": {problem.label}" if problem.label else ""
                self._say(
                    f"{problem.severity}: {problem}{label}{hint}",
                    priority=ERROR,
                    message_id=MessageId.FAILED,
                    error=problem.reference,
                    phase=self._store.state.phase,
                )
        elif type(error) is FetchError or not isinstance(error, (FetchError, KernelArgumentError)):
            import traceback

            self.debug("".join(traceback.format_exception(error)))

    # One artifact

    def checking(self, name: str) -> None:
        """Its turn has come."""
        with self._store.edit(name) as artifact:
            artifact.began = time.monotonic()

    def kept(self, transfer: Transfer) -> None:
        """The destination was right already."""
        with self._store.edit(transfer.name) as artifact:
            artifact.phase = "kept"
            artifact.ended = time.monotonic()
            if transfer.extract == "none":
                artifact.bytes = artifact.total = transfer.dest.lstat().st_size
        self._say(
            f"{transfer.name}: {transfer.dest} is right already and stays",
            message_id=MessageId.KEPT,
            artifact=transfer.name,
            sha256=artifact.sha256,
            phase="kept",
        )

    def received(self, name: str, received: DownloadResult) -> None:
        """Its bytes are here and verified."""
        with self._store.edit(name) as artifact:
            artifact.phase = "placing"
            artifact.attempts = received.attempts
            artifact.bytes_received = received.bytes_received
            artifact.url = received.url

    def placed(self, transfer: Transfer) -> None:
        """It is where it belongs."""
        with self._store.edit(transfer.name) as artifact:
            artifact.phase = "placed"
            artifact.ended = time.monotonic()
            took = artifact.ended - (artifact.began or artifact.ended)
        what = {"tar": "unpacked at", "decompress": "decompressed at"}.get(transfer.extract, "placed at")
        mode = "" if transfer.mode is None else f", mode {transfer.mode:04o}"
        tries = f" in {count(artifact.attempts, 'attempt')}" if artifact.attempts > 1 else ""
        origin = f"from {artifact.url}" if artifact.url else "that an earlier run had left"
        self._say(
            f"{transfer.name}: {what} {transfer.dest}{mode}: {amount(artifact.bytes)} {origin}{tries}, {span(took)}",
            message_id=MessageId.PLACED,
            artifact=transfer.name,
            url=artifact.url,
            bytes=artifact.bytes,
            attempt=artifact.attempts,
            sha256=artifact.sha256,
            phase="placed",
        )

    def failed(self, name: str, result: Result) -> None:
        """It is not to be had in this run."""
        with self._store.edit(name) as artifact:
            artifact.phase = "failed"
            artifact.ended = time.monotonic()
            artifact.error = result.message
            artifact.cause = result.cause
            artifact.attempts = max(artifact.attempts, result.attempts)
            if result.attempts:
                artifact.bytes_received = result.bytes_received  # progress is told of less
            artifact.url = result.url or artifact.url
        left = "stays as it was" if os.path.lexists(artifact.dest) else "is missing"
        need = "" if artifact.required else ", and the run goes on, since it is optional"
        self._say(
            f"{name}: failed: {result.sentence}; {artifact.dest} {left}{need}",
            priority=ERROR if artifact.required else WARNING,
            message_id=MessageId.FAILED,
            artifact=name,
            url=artifact.url,
            attempt=artifact.attempts,
            bytes=artifact.bytes,
            total=artifact.total,
            error=result.message,
            phase="failed",
            cause=result.cause,
        )
