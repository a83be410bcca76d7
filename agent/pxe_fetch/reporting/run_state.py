"""The state of a run and of its artifacts: what state.json, `pxe-fetch status --json` and the webhook contain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from pxe_fetch.reporting.state_file import VERSION, Document

FINAL_PHASES = frozenset(("placed", "kept", "skipped", "failed"))  # of an artifact


@dataclass(kw_only=True, slots=True)
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
    sha256: str | None = None
    error: str | None = None
    cause: str | None = None

    # Not in the document:
    mirrors: tuple[str, ...] = ()  # redacted, in the order of this node; empty if there is only one URL
    dropped_mirrors: int = 0
    started: float | None = None
    ended: float | None = None

    def document(self) -> Document:
        """This artifact's entry in state.json."""
        return {key: getattr(self, key) for key in _ARTIFACT_KEYS} | {"seconds": round(self.seconds(), 3)}

    def seconds(self) -> float:
        """How long it took, or has taken so far; 0.0 if it has not started."""
        return 0.0 if self.started is None else (self.ended or time.monotonic()) - self.started


_ARTIFACT_KEYS = tuple(
    one.name for one in fields(ArtifactState) if one.name not in {"mirrors", "dropped_mirrors", "started", "ended"}
)


@dataclass(kw_only=True, slots=True)
class RunState:
    """The run as a whole."""

    run: str  # 32 hexadecimal digits: systemd's $INVOCATION_ID, or random
    phase: str = "locating"  # locating, fetching, done, failed
    exit_code: int | None = None
    cause: str | None = None
    message: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    node: Mapping[str, str] = field(default_factory=dict)
    agent: str  # version
    started: str  # RFC 3339
    started_monotonic: float
    ended_monotonic: float | None = None
    failures: int = 0  # failed runs in a row, this one included
    artifacts: list[ArtifactState] = field(default_factory=list)

    def document(self) -> Document:
        """The content of state.json."""
        keys = ("run", "phase", "exit_code", "cause", "message", "agent", "started", "failures")
        seconds = (self.ended_monotonic or time.monotonic()) - self.started_monotonic
        return {
            "version": VERSION,
            **{key: getattr(self, key) for key in keys},
            "final": self.exit_code is not None,
            "config": dict(self.config),
            "node": dict(self.node),
            "seconds": round(seconds, 3),
            "artifacts": [artifact.document() for artifact in self.artifacts],
        }
