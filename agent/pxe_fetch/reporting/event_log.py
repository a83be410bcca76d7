"""Everything that happens in a run: each event becomes a journal entry and a change of the state."""

from __future__ import annotations

import os
import time
import traceback

from pxe_fetch.config_source import LocatedConfig
from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.paths import MessageId
from pxe_fetch.contract.problem import ProblemError, show_all
from pxe_fetch.contract.quantity import amount, count, span
from pxe_fetch.contract.url import redact, server_of
from pxe_fetch.download.retry import Attempts
from pxe_fetch.errors import FetchError, PolicyError, Result
from pxe_fetch.plan import Plan, Transfer
from pxe_fetch.reporting.journal import DEBUG, ERROR, INFO, NOTICE, WARNING, Journal, Value
from pxe_fetch.reporting.state_store import GOOD_RESULTS, ArtifactState, StateStore, UnitState

# With more artifacts than this, only their results and errors are logged: journald drops entries of a service that
# sends more than RateLimitBurst= of them (journald.conf(5)), and the important ones could be among those.
MANY_ARTIFACTS = 100


class EventLog:
    """The log of one run; implements pxe_fetch.download.context.Events. Safe to use from several threads."""

    def __init__(self, *, journal: Journal, store: StateStore) -> None:
        self.journal = journal
        self._store = store
        self._routine = INFO  # priority of what happens to each artifact if nothing goes wrong
        self._limited: set[str] = set()  # the servers whose limit has been logged
        self._tiers_used: set[tuple[str, int | None]] = set()  # of each artifact

    # The run

    def config_located(self, config: LocatedConfig) -> None:
        """The run uses this configuration."""
        self._store.config = {"source": config.source, "path_or_url": config.location, "sha256": config.sha256}
        fields = {"url": config.location, "sha256": config.sha256, "phase": "locating"}
        self._send(f"configuration: {config.reason}", MessageId.CONFIG_FOUND, **fields)

    def planned(self, plan: Plan, *, config: FetchConfig) -> None:
        """The run is going to fetch what `plan` says."""
        transfers = {transfer.name: transfer for transfer in plan.transfers}
        skipped = dict.fromkeys(artifact.name for artifact in plan.skipped)
        states = {
            one.name: ArtifactState(name=one.name, dest=one.dest, required=one.required) for one in config.artifacts
        }
        for name, state in states.items():
            if transfer := transfers.get(name):
                state.dest = str(transfer.dest)
                state.total = transfer.size
                state.mirrors = _numbered(transfer)
                if transfer.digest and transfer.digest.algorithm == "sha256":
                    state.sha256 = transfer.digest.hex
            elif name in skipped:
                state.phase = "skipped"
        self._store.artifacts, self._store.phase = states, "fetching"
        self._store.save()
        sizes = [transfer.size for transfer in plan.transfers]
        known = sum(size or 0 for size in sizes)
        size = f" ({amount(known)})" if known and None not in sizes else ""
        notes = f"; not for this node: {', '.join(skipped)}" if skipped else ""
        if len(plan.transfers) > MANY_ARTIFACTS:
            self._routine = DEBUG
            notes += "; with so many, only results and errors are logged"
        message = f"{count(len(plan.transfers), 'artifact')} to fetch{size}, up to {config.parallel} at a time{notes}"
        self._send(message, MessageId.STATUS, phase="fetching")

    def finished(self, result: Result) -> None:
        """The run has ended; the last event that changes the state."""
        self._store.finish(result)
        if self._store.write_error:
            self.log(self._store.write_error, priority=DEBUG)
        if self.journal.is_plain_text:
            return  # the same line goes to stdout
        state = self._store
        self._send(
            f"{state.phase}: {result.message}",
            MessageId.FAILED if result.failed else MessageId.DONE,
            ERROR if result.failed else WARNING if result.exit_code else INFO,
            error=result.message if result.exit_code else None,
            cause=result.cause,
            bytes=sum(artifact.bytes_received for artifact in state.artifacts.values()),
            phase=state.phase,
            exit_code=int(result.exit_code),
        )

    def log(self, message: str, *, priority: int = NOTICE) -> None:
        """Log anything else; the state stays as it is."""
        self._send(message, MessageId.STATUS, priority)

    def log_details(self, error: Exception) -> None:
        """Log what the result leaves out: all problems of a configuration, or its refusal; the traceback of a bug."""
        if isinstance(error, ProblemError) and self.journal.is_plain_text:
            self.journal.write(show_all(error.problems))
        elif isinstance(error, ProblemError):
            for problem in error.problems:
                label = f": {problem.label}" if problem.label else ""
                hint = f" (hint: {problem.hint})" if problem.hint else ""
                message = f"{problem.severity}: {problem}{label}{hint}"
                fields = {"error": problem.reference, "phase": self._store.phase}
                self._send(message, MessageId.FAILED, ERROR, **fields)
        elif isinstance(error, PolicyError) and self._store.phase == "locating" and not self.journal.is_plain_text:
            fields = {"error": str(error), "cause": error.reference, "phase": self._store.phase}
            self._send(f"the configuration is refused: {error}", MessageId.CONFIG_REFUSED, ERROR, **fields)
        elif type(error) is FetchError or not isinstance(error, FetchError):
            self.log("".join(traceback.format_exception(error)), priority=DEBUG)

    # One artifact, before and after its download

    def checking(self, name: str) -> None:
        """Work on the artifact has started; its destination is checked first."""
        with self._store.edit(name) as artifact:
            artifact.started = time.monotonic()

    def up_to_date(self, transfer: Transfer) -> None:
        """The destination is already what it should be, and stays."""
        with self._store.edit(transfer.name) as artifact:
            artifact.phase = "kept"
            artifact.ended = time.monotonic()
            if transfer.extract == "none":
                artifact.bytes = artifact.total = transfer.dest.lstat().st_size
        self._send_of(artifact, f"{transfer.dest} is up to date", MessageId.KEPT)

    def downloaded(self, name: str, attempts: Attempts) -> None:
        """The artifact is in its part file, verified."""
        with self._store.edit(name) as artifact:
            artifact.phase = "placing"
            artifact.attempts = attempts.number
            artifact.bytes_received = attempts.received
            artifact.url = attempts.last_url()

    def installed(self, transfer: Transfer) -> None:
        """The artifact is in place."""
        with self._store.edit(transfer.name) as artifact:
            artifact.phase = "placed"
            artifact.ended = time.monotonic()
        action = {"tar": "unpacked at", "decompress": "decompressed at"}.get(transfer.extract, "placed at")
        mode = "" if transfer.mode is None else f", mode {transfer.mode:04o}"
        attempts = f" in {count(artifact.attempts, 'attempt')}" if artifact.attempts > 1 else ""
        origin = f" from {artifact.url}" if artifact.url else " left by an earlier run" if artifact.bytes else ""
        details = f"{amount(artifact.bytes)}{origin}{attempts}, {span(artifact.seconds)}"
        self._send_of(artifact, f"{action} {transfer.dest}{mode}: {details}", MessageId.PLACED)

    def failed(self, name: str, result: Result) -> None:
        """The artifact has failed for this run."""
        with self._store.edit(name) as artifact:
            artifact.phase = "failed"
            artifact.ended = time.monotonic()
            artifact.error = result.message
            artifact.cause = result.cause
            artifact.attempts = max(artifact.attempts, result.attempts)
            if result.attempts:
                artifact.bytes_received = result.bytes_received  # exact; `progress` is called less often
            artifact.url = result.url or artifact.url
        state = "is unchanged" if os.path.lexists(artifact.dest) else "is missing"
        optional = "" if artifact.required else "; it is optional, so the run continues"
        message = f"failed: {result.sentence}; {artifact.dest} {state}{optional}"
        priority = ERROR if artifact.required else WARNING
        self._send_of(artifact, message, MessageId.FAILED, priority, error=result.message, cause=result.cause)

    # The units in its `start:` list

    def unit_added(self, unit: UnitState) -> None:
        """The unit is asked to start."""
        self._store.add_unit(unit)

    def unit_settled(self, unit: UnitState) -> None:
        """What became of the unit is known, or nobody waits for it any longer."""
        failed = unit.result not in GOOD_RESULTS
        fields = {"artifact": unit.artifact, "unit": unit.name, "result": unit.result}
        self._send(
            f"{unit.artifact}: {unit.sentence}{f' (systemctl status {unit.name})' if failed else ''}",
            MessageId.UNIT,
            INFO if not failed else ERROR if unit.required else WARNING,
            error=unit.message if failed else None,
            **fields,
        )

    # One artifact's download (pxe_fetch.download.context.Events). Some downloads are not artifacts (the configuration,
    # a list of digests): those have no `dest` and no state, and only their errors are logged.

    def resolved(self, transfer: Transfer, *, reference: str) -> None:
        with self._store.edit(transfer.name) as artifact:
            artifact.oci = reference
            artifact.total = transfer.size
            artifact.sha256 = transfer.digest.hex if transfer.digest and transfer.digest.algorithm == "sha256" else None
            artifact.mirrors = _numbered(transfer)
        message = f"{reference} has {transfer.title}: {amount(transfer.size or 0)}"
        self._send_of(artifact, message, MessageId.STATUS, self._routine, url=redact(transfer.listed_url))

    def lost_chunks(self, transfer: Transfer, *, error: str) -> None:
        message = f"its list of chunk digests cannot be fetched, so one stream fetches the whole: {error}"
        self._send_of(self._store.get(transfer.name), message, MessageId.STATUS, WARNING, error=error)

    def started(
        self, name: str, *, url: str, offset: int, total: int | None, final_url: str | None = None, remark: str = ""
    ) -> None:
        with self._store.edit(name) as artifact:
            mirrors, before = artifact.mirrors, artifact.url
            is_other_tier = before is None or mirrors.get(before) != mirrors.get(url)
            artifact.final_url, artifact.remark = final_url, remark or None
            artifact.phase = "fetching"
            artifact.url = url
            artifact.bytes = offset
            artifact.total = artifact.total if total is None else total
            artifact.attempts = max(artifact.attempts, 1)
        if is_other_tier and artifact.dest:
            size = "" if total is None else f" ({amount(total)})"
            mirror = f", mirror {[*mirrors].index(url) + 1} of {len(mirrors)}" if url in mirrors else ""
            tiers = max(mirrors.values(), default=1)
            mirror += f" in tier {mirrors[url]} of {tiers}" if 1 < tiers < len(mirrors) else ""
            use = name, mirrors.get(url)
            priority = DEBUG if use in self._tiers_used else self._routine  # they may take turns for every chunk
            self._tiers_used.add(use)
            self._send_of(artifact, f"fetching from {url}{mirror}{size}", MessageId.START, priority)

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        artifact = self._store.get(name)
        of = f" of {amount(artifact.total)}" if artifact.total else ""
        message = f"resuming at {amount(offset)}{of} from {url}"
        self._send_of(artifact, message, MessageId.RESUMED, url=url, bytes=offset)

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        with self._store.edit(name) as artifact:
            artifact.bytes_received += max(received - artifact.bytes, 0)
            artifact.bytes = received
            artifact.total = artifact.total if total is None else total

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        with self._store.edit(name) as artifact:
            artifact.attempts = max(artifact.attempts, attempt)
            artifact.error = error
            artifact.phase = "fetching"
        where = "" if next_url == url else f" at {next_url}"
        soon = "now" if wait_seconds < 0.05 else f"in {span(wait_seconds)}"  # noqa: PLR2004
        message = f"attempt {attempt} at {url} failed: {error}; trying again{where} {soon}"
        fields = {"attempt": attempt, "http_status": status, "next_retry_ms": round(wait_seconds * 1000)}
        self._send_of(artifact, message, MessageId.RETRYING, WARNING, url=url, error=error, **fields)

    def mirror_dropped(self, name: str, *, url: str, reason: str) -> None:
        with self._store.edit(name) as artifact:
            artifact.dropped_mirrors += 1
            mirrors = len(artifact.mirrors) - artifact.dropped_mirrors
        left = f"; {count(mirrors, 'mirror')} left" if mirrors else "; no mirror left"
        message = f"{url} is no longer used: {reason}{left if artifact.mirrors else ''}"
        self._send_of(artifact, message, MessageId.MIRROR_DROPPED, WARNING, url=url, error=reason)

    def limited(self, *, url: str, streams: int, error: str) -> None:
        if (server := server_of(url)) in self._limited:
            return
        self._limited.add(server)
        self.log(
            f"{server} serves this node no more than {count(streams, 'stream')} at once ({error}): the others wait for "
            "their turn there, or go to other mirrors, and none of this counts as a failed attempt"
        )

    def chunk_wrong(self, name: str, *, url: str, error: str) -> None:
        message = f"{url} sent {error}; fetching that chunk again"
        self._send_of(self._store.get(name), message, MessageId.CHUNK_WRONG, WARNING, url=url, error=error)

    def chunk_mended(self, name: str, *, url: str, chunk: int) -> None:
        message = f"chunk {chunk} is correct now, from {url}"
        self._send_of(self._store.get(name), message, MessageId.CHUNK_MENDED, url=url)

    def verifying(self, name: str, *, total: int) -> None:
        with self._store.edit(name) as artifact:
            artifact.phase = "verifying"
        self._send_of(artifact, f"hashing {amount(total)} to verify them", MessageId.STATUS, DEBUG)

    def verified(self, name: str, *, digest: str, total: int) -> None:
        algorithm, _, hex_digits = digest.partition(":")
        with self._store.edit(name) as artifact:
            artifact.bytes = artifact.total = total
            artifact.error = None  # overcome; the journal has it
            artifact.sha256 = hex_digits if algorithm == "sha256" else None
        if artifact.dest:
            message = f"verified {amount(total)}, {digest}"
            self._send_of(artifact, message, MessageId.VERIFIED, self._routine, phase="verifying")

    def _send_of(
        self, artifact: ArtifactState, message: str, message_id: str, priority: int = INFO, /, **fields: Value
    ) -> None:
        """Send an entry about `artifact`, with what is known of it now unless `fields` have it otherwise."""
        names = ("url", "phase", "bytes", "total", "sha256")
        state = {name: getattr(artifact, name) for name in names} | {"attempt": artifact.attempts or None}
        self._send(f"{artifact.name}: {message}", message_id, priority, artifact=artifact.name, **(state | fields))

    def _send(self, message: str, message_id: str, priority: int = INFO, /, **fields: Value) -> None:
        self.journal.send(message, priority=priority, message_id=message_id, run=self._store.run, **fields)


def _numbered(transfer: Transfer) -> dict[str, int]:
    """The mirrors, redacted, and the numbers of their tiers, from 1; none if there is one mirror."""
    tiers = enumerate(transfer.mirrors, 1) if len(transfer.urls) > 1 else ()
    return {redact(url): number for number, tier in tiers for url in tier}
