"""The outcome of a test boot: the node's state, the stages it reached, what it downloaded. As text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.boot.stages import ConsoleVerdict, Stage
from pxe_pack.console import joined

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """The state of one artifact, as the node reports it."""

    name: str
    dest: str
    phase: str
    required: bool
    bytes: int
    total: int | None
    bytes_received: int
    attempts: int
    url: str | None
    sha256: str | None
    seconds: float
    error: str | None
    cause: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedUnit:
    """What became of a unit in the `start:` list of an artifact, as the node reports it."""

    name: str
    artifact: str
    required: bool
    result: str
    message: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeState:
    """The state of the agent's run, as the node reports it (docs/node.md)."""

    phase: str
    exit_code: int | None
    cause: str | None
    message: str
    config: str  # where its configuration came from
    seconds: float
    artifacts: tuple[Fetched, ...]
    units: tuple[StartedUnit, ...] = ()


@dataclass(slots=True)
class Served:
    """What the node requested of one URL, whether or not the layout has it."""

    url: str
    requests: int = 0
    bytes: int = 0
    missed: int = 0  # answered with 404


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a test boot."""

    node: NodeState | None
    console_verdict: ConsoleVerdict | None
    stage: Stage  # the furthest one reached
    stages: tuple[tuple[Stage, float], ...]  # with the seconds spent in each
    served: tuple[Served, ...]
    failure: Problem | None  # why there is no verdict; None if there is one
    serial_log: Path
    accelerator: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the agent's run ended with exit code 0."""
        if self.node is not None:
            return self.node.exit_code == 0
        return self.failure is None and self.console_verdict is not None and self.console_verdict.done


def read_state(document: Mapping[str, object]) -> NodeState:
    """The state in a state document; keys that are missing or of the wrong type are left empty."""
    config = document.get("config")
    return NodeState(
        phase=_text(document, "phase") or "",
        exit_code=_whole(document, "exit_code"),
        cause=_text(document, "cause"),
        message=_text(document, "message") or "",
        config=" ".join(
            filter(
                None, [_text(config, "path_or_url"), f"({_text(config, 'source')})" if _text(config, "source") else ""]
            )
        )
        if isinstance(config, Mapping)
        else "",
        seconds=_number(document, "seconds"),
        artifacts=tuple(_fetched(entry) for entry in _entries(document, "artifacts")),
        units=tuple(_started(entry) for entry in _entries(document, "units")),
    )


def _fetched(entry: Mapping[str, object]) -> Fetched:
    return Fetched(
        name=_text(entry, "name") or "",
        dest=_text(entry, "dest") or "",
        phase=_text(entry, "phase") or "",
        required=entry.get("required") is not False,
        bytes=_whole(entry, "bytes") or 0,
        total=_whole(entry, "total"),
        bytes_received=_whole(entry, "bytes_received") or 0,
        attempts=_whole(entry, "attempts") or 0,
        url=_text(entry, "url"),
        sha256=_text(entry, "sha256"),
        seconds=_number(entry, "seconds"),
        error=_text(entry, "error"),
        cause=_text(entry, "cause"),
    )


def _started(entry: Mapping[str, object]) -> StartedUnit:
    return StartedUnit(
        name=_text(entry, "name") or "",
        artifact=_text(entry, "artifact") or "",
        required=entry.get("required") is True,
        result=_text(entry, "result") or "",
        message=_text(entry, "message"),
        seconds=_number(entry, "seconds"),
    )


def as_document(outcome: Outcome) -> dict[str, object]:
    """The outcome as a JSON document (docs/json.md)."""
    return {
        "ok": outcome.ok,
        "node": asdict(outcome.node) if outcome.node else None,
        "console": outcome.console_verdict.text if outcome.console_verdict else None,
        "stage": str(outcome.stage),
        "stages": [{"stage": str(stage), "seconds": round(seconds, 3)} for stage, seconds in outcome.stages],
        "served": [asdict(served) for served in outcome.served],
        "failure": outcome.failure.as_document() if outcome.failure else None,
        "serial_log": str(outcome.serial_log),
        "accelerator": outcome.accelerator,
        "seconds": round(outcome.seconds, 3),
    }


def as_text(outcome: Outcome) -> str:
    """The outcome as text: the verdict, a line per artifact, the time per stage, and the serial log's path."""
    lines = [_headline(outcome), ""]
    if outcome.node:
        lines += _artifacts(outcome.node.artifacts)
        for unit in outcome.node.units:
            lines.append(f"unit           {unit.name}: {unit.result}{f', {unit.message}' if unit.message else ''}")
        lines += [f"configuration  {outcome.node.config}"] if outcome.node.config else []
    for served in outcome.served:
        if served.missed:
            lines.append(f"not served     {served.url} is not part of this layout; requested {served.missed} times")
    took = " · ".join(f"{stage} {seconds:.1f} s" for stage, seconds in outcome.stages)
    lines += [f"stages         {took}", f"serial log     {outcome.serial_log}"]
    return joined(lines)


def _headline(outcome: Outcome) -> str:
    after = f"after {outcome.seconds:.0f} s, {outcome.accelerator}"
    if outcome.node is None:
        said = (
            outcome.console_verdict.text
            if outcome.console_verdict
            else f"No result: the node got as far as {outcome.stage}"
        )
        return f"{said} ({after})"
    node = outcome.node
    verdict = {0: "The node is done", 2: "The node is done, but an optional artifact failed"}.get(
        -1 if node.exit_code is None else node.exit_code, "The node failed"
    )
    cause = f", {node.cause}" if node.cause else ""
    message = f": {node.message}" if node.message else ""
    return f"{verdict} (exit code {node.exit_code}{cause}; {after}){message}"


def _artifacts(artifacts: Sequence[Fetched]) -> list[str]:
    rows = [("artifact", "", "bytes", "attempts", "seconds", "from")]
    for one in artifacts:
        of_total = f" of {size(one.total)}" if one.total is not None and one.total != one.bytes else ""
        optional = "" if one.required else " (optional)"
        rows.append(
            (
                *(one.name + optional, one.phase, size(one.bytes) + of_total),
                *(str(one.attempts), f"{one.seconds:.1f}", one.url or "-"),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows
    ]
    shown = [lines[0]] if artifacts else ["no artifacts"]
    for line, one in zip(lines[1:], artifacts, strict=True):
        shown += [line, f"    → {one.dest}"]
        shown += [f"    {one.cause + ': ' if one.cause else ''}{one.error}"] if one.error else []
    return [*shown, ""]


def size(count: int) -> str:
    """`count` bytes in readable form: `512 B`, `3.4 MiB`."""
    power = min(max(count.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    return f"{count / 1024**power:.1f} {UNITS[power]}" if power else f"{count} B"


def _entries(document: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    value = document.get(key)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _text(entry: Mapping[str, object], key: str) -> str | None:
    value = entry.get(key)
    return value if isinstance(value, str) else None


def _whole(entry: Mapping[str, object], key: str) -> int | None:
    value = entry.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(entry: Mapping[str, object], key: str) -> float:
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
