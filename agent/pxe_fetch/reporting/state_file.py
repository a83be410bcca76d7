"""The state of a run and of its artifacts, and the file that has it: state.json.

The webhook and `pxe-fetch status --json` give the same document.

It stays after the run, for `pxe-fetch status` and for the next run, which counts the failed runs before it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pxe_fetch.contract import paths

VERSION = 1  # of the document
ENDED = frozenset(("done", "failed"))  # phases of a run that is over
FINAL_PHASES = frozenset(("placed", "kept", "skipped", "failed"))  # of an artifact

Document = dict[str, Any]  # a parsed state file; `_is_complete` checks the keys that are used


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


def path() -> Path | None:
    """The state file to write: in the unit's runtime directory, in /run for root, or in the user's own.

    None for an ordinary user without XDG_RUNTIME_DIR: such a run has no state file. RUNTIME_DIRECTORY is systemd's
    (systemd.exec(5)), a colon-separated list.
    """
    if directory := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(directory, "state.json")
    return Path(paths.STATE) if os.geteuid() == 0 else _of_user()


def write(document: Document, *, file: Path) -> None:
    """Replace `file` atomically: readers see the old document or the new one. Raises OSError."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o644)  # whatever the umask: every user may run `status`
        stream.write(json.dumps(document) + "\n")
    new.replace(file)


def read(file: Path) -> Document | None:
    """The document in `file`; None if it is missing, damaged, or of another version."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and _is_complete(document) else None


def latest() -> Document | None:
    """The newest state that this user may see, the service's or the user's own; None if there is none."""
    if os.environ.get("RUNTIME_DIRECTORY"):
        candidates = [path()]
    else:
        candidates = [Path(paths.STATE), _of_user() if os.geteuid() else None]
    newest: tuple[int, Path] | None = None
    for file in filter(None, candidates):
        try:
            newest = max(newest or (0, file), (file.stat().st_mtime_ns, file))
        except OSError:
            continue
    return read(newest[1]) if newest else None


def failed_runs(file: Path | None) -> int:
    """How many runs in a row have failed or were killed, up to the one that wrote `file`; 0 if that is unknown."""
    document = read(file) if file else None
    try:
        return int(document["failures"]) + (document["phase"] not in ENDED) if document else 0
    except (KeyError, TypeError, ValueError):
        return 0


def _of_user() -> Path | None:
    directory = os.environ.get("XDG_RUNTIME_DIR")
    return Path(directory, paths.USER_STATE_DIR, "state.json") if directory else None


def _is_complete(document: Document) -> bool:
    keys = ("phase", "message", "config", "node", "started", "seconds", "agent", "artifacts", "exit_code")
    return document.get("version") == VERSION and all(key in document for key in keys)
