"""The stages of a node's boot, in their order, and the states that a node can be in."""

from __future__ import annotations

from typing import Any

from pxe_pack.choices import STAGES

ORDER = {stage: number for number, stage in enumerate(STAGES)}
# From here on a node cannot be at its boot loader any more: if it asks for one again, it has been booted again.
BOOTED = ORDER["kernel"]

# Seconds without news after which a node that has not ended is `silent`. The agent reports changes of phase only, and a
# large artifact has one phase for long.
SILENT_AFTER = {"booting": 180, "fetching": 1800}

_ENDED_ARTIFACT = frozenset(("placed", "kept", "skipped", "failed"))


def of_report(document: dict[str, Any]) -> tuple[str, str]:
    """The stage and the state of a node that has sent this report (`document.read`)."""
    artifacts, phase = document["artifacts"], document["phase"]
    if phase == "done":
        return "done", "degraded" if document["exit_code"] else "done"
    if phase == "locating" or not artifacts:
        stage = "agent"
    elif document["cause"] == "unit-failed" or all(one["phase"] in _ENDED_ARTIFACT for one in artifacts):
        stage = "artifacts" if phase == "failed" and document["cause"] != "unit-failed" else "units"
    else:
        stage = "artifacts"
    return stage, "failed" if phase == "failed" else "fetching"


def percent_of(document: dict[str, Any]) -> float | None:
    """How much of the artifacts' bytes a node has; None if a size is unknown or there is nothing to fetch.

    What came of an artifact that has failed does not count: it may all have come, and be wrong.
    """
    wanted = [one for one in document["artifacts"] if one["phase"] != "skipped"]
    sizes = [one["total"] for one in wanted]
    if not sizes or None in sizes or not sum(sizes):
        return None
    return float(min(100, round(100 * sum(one["bytes"] for one in wanted if one["phase"] != "failed") / sum(sizes), 1)))
