"""What the engine tells of the artifacts under way, as lines of the journal and changes of the state."""

from __future__ import annotations

from pxe_fetch.contract.paths import MessageId
from pxe_fetch.humanize import amount, count, soon
from pxe_fetch.reporting.journal import DEBUG, INFO, WARNING, Journal
from pxe_fetch.reporting.state_store import StateStore


class Progress:
    """Implements pxe_fetch.download.events.Events; safe to use from several threads."""

    def __init__(self, *, journal: Journal, store: StateStore) -> None:
        self._journal = journal
        self._store = store
        self._usual = INFO  # priority of what each artifact goes through when nothing goes wrong

    def started(self, name: str, *, url: str, offset: int, total: int | None) -> None:
        if self._store.find(name) is None:
            return
        with self._store.edit(name) as artifact:
            first = artifact.url is None
            artifact.phase = "fetching"
            artifact.url = url
            artifact.bytes = artifact.at = offset
            artifact.total = artifact.total if total is None else total
            artifact.attempts = max(artifact.attempts, 1)
        if first and self._journal.shows(self._usual):
            size = "" if total is None else f" ({amount(total)})"
            mirrors = artifact.mirrors
            which = f", mirror {mirrors.index(url) + 1} of {len(mirrors)}" if url in mirrors else ""
            self._say(
                f"{name}: fetching from {url}{which}{size}",
                priority=self._usual,
                message_id=MessageId.START,
                artifact=name,
                url=url,
                bytes=offset,
                total=total,
                phase="fetching",
            )

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        artifact = self._store.find(name)
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
        if self._store.find(name) is None:
            return
        with self._store.edit(name) as artifact:
            artifact.bytes_received += max(received - artifact.at, 0)
            artifact.bytes = artifact.at = received
            artifact.total = artifact.total if total is None else total

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        if self._store.find(name):
            with self._store.edit(name) as artifact:
                artifact.attempts = max(artifact.attempts, attempt)
                artifact.error = error
                artifact.phase = "fetching"
        elsewhere = "" if next_url == url else f" at {next_url}"
        self._say(
            f"{name}: attempt {attempt} at {url} failed: {error}; trying again{elsewhere} {soon(wait_seconds)}",
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
        left = ""
        if artifact := self._store.find(name):
            with self._store.edit(name):
                artifact.dropped += 1
            others = len(artifact.mirrors) - artifact.dropped
            if artifact.mirrors:
                left = f"; {count(others, 'mirror')} left" if others else "; no mirror is left"
        self._say(
            f"{name}: {url} is not asked again: {reason}{left}",
            priority=WARNING,
            message_id=MessageId.MIRROR_DROPPED,
            artifact=name,
            url=url,
            error=reason,
            phase="fetching",
        )

    def chunk_wrong(self, name: str, *, url: str, error: str) -> None:
        self._say(
            f"{name}: {url} gave {error}; that chunk is fetched again",
            priority=WARNING,
            message_id=MessageId.CHUNK_WRONG,
            artifact=name,
            url=url,
            error=error,
            phase="fetching",
        )

    def chunk_mended(self, name: str, *, url: str, chunk: int) -> None:
        self._say(
            f"{name}: chunk {chunk} came right from {url}",
            message_id=MessageId.CHUNK_MENDED,
            artifact=name,
            url=url,
            phase="fetching",
        )

    def verifying(self, name: str, *, total: int) -> None:
        if self._store.find(name):
            with self._store.edit(name) as artifact:
                artifact.phase = "verifying"
        self._say(f"{name}: reading {amount(total)} again to verify them", priority=DEBUG, message_id=MessageId.STATUS)

    def verified(self, name: str, *, digest: str, total: int) -> None:
        if self._store.find(name) is None:
            return  # nobody has named a digest yet
        algorithm, _, hex_digits = digest.partition(":")
        with self._store.edit(name) as artifact:
            artifact.bytes = artifact.total = total
            artifact.error = None  # what went wrong on the way has been overcome; the journal has it
            artifact.sha256 = hex_digits if algorithm == "sha256" else None
        if not self._journal.shows(self._usual):
            return
        self._say(
            f"{name}: all {amount(total)} have the right digest, {digest}",
            priority=self._usual,
            message_id=MessageId.VERIFIED,
            artifact=name,
            bytes=total,
            total=total,
            sha256=hex_digits if algorithm == "sha256" else None,
            phase="verifying",
        )

    def _say(self, message: str, *, priority: int = INFO, message_id: str = "", **fields: str | float | None) -> None:
        self._journal.send(message, priority=priority, message_id=message_id, run=self._store.state.run, **fields)
