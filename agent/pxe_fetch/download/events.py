"""What a download reports while it runs: one Protocol, implemented by the journal and the state file's writer."""

from __future__ import annotations

from typing import Protocol


class Events(Protocol):
    """Called from the thread of the download that `name` names, so from several threads at once.

    `name` is the artifact's; every `url` and `error` is redacted already (contract.url.redact); bytes count from the
    start of the artifact, seconds are seconds. An implementation neither blocks nor raises.
    """

    def started(self, name: str, *, url: str, offset: int, total: int | None) -> None:
        """A server has answered and bytes follow from `offset` on; `total` is the whole size where known."""

    def resumed(self, name: str, *, url: str, offset: int) -> None:
        """After `started`: the first `offset` bytes need not be fetched again."""

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        """`received` bytes of the artifact are here; called about twice a second, and at the end of a body."""

    def retrying(
        self, name: str, *, url: str, attempt: int, error: str, status: int | None, wait_seconds: float, next_url: str
    ) -> None:
        """Attempt number `attempt` (from 1) failed at `url`; after `wait_seconds` the next one goes to `next_url`."""

    def mirror_dropped(self, name: str, *, url: str, reason: str) -> None:
        """`url` will not be asked again for this artifact: it refused, or its bytes were wrong too often."""

    def chunk_wrong(self, name: str, *, url: str, error: str) -> None:
        """A chunk from `url` is wrong; it alone is fetched again, from another mirror where there is one."""

    def chunk_mended(self, name: str, *, url: str, chunk: int) -> None:
        """The chunk number `chunk` (from 0), which had come wrong, came right from `url`."""

    def verifying(self, name: str, *, total: int) -> None:
        """`total` bytes that an earlier run left are being read again."""

    def verified(self, name: str, *, digest: str, total: int) -> None:
        """All `total` bytes are here and have the digest `algorithm:hex`."""
