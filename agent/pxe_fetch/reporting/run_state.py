"""The run's result as a document: what became of the run, and of each artifact."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = 1
UNFINISHED = frozenset(("locating", "fetching"))  # a run that is not over, or was cut off
ENDED = frozenset(("placed", "kept", "skipped", "failed"))  # an artifact that no longer changes

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]


@dataclass(kw_only=True, slots=True)
class ArtifactState:
    """What became of one artifact so far. Bytes are of the wire; seconds on the monotonic clock."""

    name: str
    dest: str
    required: bool
    phase: str = "waiting"  # waiting, fetching, verifying, placing, placed, kept, skipped, failed
    bytes: int = 0  # of the file that are there
    total: int | None = None
    bytes_received: int = 0  # over all attempts: what a fault made us fetch twice counts twice
    attempts: int = 0
    url: str | None = None  # redacted; the mirror in use, or that served
    sha256: str | None = None
    mirrors: tuple[str, ...] = ()  # redacted, in the order of this node
    dropped: int = 0  # mirrors that are not asked again
    at: int = 0  # where the transfer stands; what comes beyond it is received
    began: float | None = None
    ended: float | None = None
    error: str | None = None
    cause: str | None = None

    def document(self) -> dict[str, Value]:
        """As state.json has it."""
        seconds = 0.0 if self.began is None else (self.ended or time.monotonic()) - self.began
        return {
            "name": self.name,
            "dest": self.dest,
            "phase": self.phase,
            "required": self.required,
            "bytes": self.bytes,
            "total": self.total,
            "bytes_received": self.bytes_received,
            "attempts": self.attempts,
            "url": self.url,
            "sha256": self.sha256,
            "seconds": round(seconds, 3),
            "error": self.error,
            "cause": self.cause,
        }


@dataclass(kw_only=True, slots=True)
class RunState:
    """What became of the run so far."""

    run: str
    agent: str
    started: str  # RFC 3339
    began: float  # monotonic
    phase: str = "locating"  # locating, fetching, done, failed
    exit_code: int | None = None
    cause: str | None = None
    message: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    node: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    artifacts: list[ArtifactState] = field(default_factory=list)
    failures: int = 0  # runs that failed since the last that did not, this one included

    def document(self) -> dict[str, Value]:
        """As state.json has it."""
        seconds = time.monotonic() - self.began if self.seconds is None else self.seconds
        return {
            "version": VERSION,
            "run": self.run,
            "phase": self.phase,
            "final": self.exit_code is not None,
            "exit_code": self.exit_code,
            "cause": self.cause,
            "message": self.message,
            "config": dict(self.config),
            "node": dict(self.node),
            "agent": self.agent,
            "started": self.started,
            "seconds": round(seconds, 3),
            "failures": self.failures,
            "artifacts": [artifact.document() for artifact in self.artifacts],
        }


def earlier_failures(file: str | None) -> int:
    """How many runs before this one failed or were cut off, since the last that did not; 0 where nothing is known."""
    try:
        with open(file or "", encoding="utf-8") as stream:  # noqa: PTH123
            before = json.load(stream)
        failures = int(before["failures"])
        return failures + (before["phase"] in UNFINISHED)
    except (OSError, ValueError, KeyError, TypeError):
        return 0
