"""How an artifact or a run ended: exit code, cause, and a sentence."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pxe_fetch.contract.cmdline import KernelArgumentError
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.errors import CannotCreateError, DeadlineError, DiskError, FetchError, NoRoomError, StoppedError
from pxe_fetch.humanize import amount, count, span
from pxe_fetch.reporting.state_file import GOOD_RESULTS, RunState, UnitState

# The unit restarts the agent after these (all others are in its RestartPreventExitStatus=).
RESTARTED = frozenset((Exit.NETWORK, Exit.BUG, Exit.IO, Exit.DEADLINE, Exit.INTEGRITY))

MAX_NAMED = 8  # artifacts named in the one line of the result

_LOCAL_CAUSES = frozenset(  # they have nothing to do with the server
    error.reference for error in (NoRoomError, DiskError, CannotCreateError, DeadlineError, StoppedError)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How an artifact or a run ended."""

    exit_code: Exit
    cause: str | None = None  # a stable reference, as `no-room`; None if nothing failed
    message: str = ""
    attempts: int = 0  # 0 if the failure is not one of the download
    bytes_received: int = 0  # in these attempts
    url: str | None = None  # redacted; the mirror that the failure is about, or the one that was asked last

    @property
    def sentence(self) -> str:
        """The message, with the URL in front if the server has to do with it."""
        return f"{self.url}: {self.message}" if self.url and self.cause not in _LOCAL_CAUSES else self.message

    @property
    def failed(self) -> bool:
        """Whether anything that is required is missing."""
        return self.exit_code not in {Exit.DONE, Exit.DEGRADED}


def error_result(error: Exception) -> Result:
    """The result that `error` leads to. An exception of an unknown kind is a bug of the agent."""
    match error:
        case FetchError():
            return Result(
                exit_code=error.exit_code,
                cause=error.reference,
                message=str(error),
                attempts=error.attempts,
                bytes_received=error.bytes_received,
                url=error.url,
            )
        case ProblemError():
            first, *others = error.problems
            hint = f" (hint: {first.hint})" if first.hint else ""
            more = f" (and {count(len(others), 'more problem')})" if others else ""
            return Result(exit_code=Exit.CONFIG, cause=first.reference, message=f"{first}{hint}{more}")
        case KernelArgumentError():
            return Result(exit_code=Exit.CONFIG, cause="kernel-argument-invalid", message=str(error))
    return Result(exit_code=Exit.BUG, cause="bug", message=f"a bug in pxe-fetch: {type(error).__name__}: {error}")


def run_result(state: RunState, *, failures: Mapping[str, Result]) -> Result:
    """The result of a run whose artifacts have all ended; `failures` are those that failed, by name.

    The exit code is that of the first required artifact that failed, in the order of the configuration. A failure after
    which the unit restarts the agent comes before one after which it does not: the next run fetches what it can, and
    the final failure is reported once nothing else is left.
    """
    artifacts = state.artifacts
    units = [one for one in state.units if one.result not in GOOD_RESULTS]
    failures = {one.artifact: _unit_result(one) for one in units if one.required} | {**failures}
    required = [one for one in artifacts if one.required and one.name in failures]
    optional = [one for one in artifacts if not one.required and one.name in failures]
    elapsed = span(time.monotonic() - state.started_monotonic)
    if required:
        first = next((one for one in required if failures[one.name].exit_code in RESTARTED), required[0])
        failure = failures[first.name]
        others = [one.name for one in (*required, *optional) if one is not first]
        also = f"; also failed: {_join(others, ', ')}" if others else ""
        message = f"{first.name}: {failure.sentence}{also} ({_summary(state)}, {elapsed})"
        return Result(exit_code=failure.exit_code, cause=failure.cause, message=message)
    received = amount(sum(one.bytes_received for one in artifacts))
    summary = f"{_summary(state)}, {received} received, {elapsed}"
    if idle := [one.sentence for one in units if not one.required]:
        summary += f"; {_join(idle, '; ')}"
    if not optional:
        return Result(exit_code=Exit.DONE, message=summary)
    reasons = _join([f"{one.name}: {failures[one.name].sentence}" for one in optional], "; ")
    return Result(
        exit_code=Exit.DEGRADED,
        cause=failures[optional[0].name].cause,
        message=f"{summary}; without {count(len(optional), 'optional artifact')}: {reasons}",
    )


def _unit_result(unit: UnitState) -> Result:
    """The result of an artifact whose unit was required, and did not start.

    Not in RESTARTED: the next run would find the artifact in place, and start the same unit in the same way. To try a
    unit again is up to its own Restart= (systemd.service(5)).
    """
    return Result(exit_code=Exit.CANNOT_CREATE, cause="unit-failed", message=unit.sentence)


def _join(items: Sequence[str], separator: str) -> str:
    """The first MAX_NAMED of `items` and how many more there are; each has a journal entry of its own."""
    more = len(items) - MAX_NAMED
    return separator.join([*items[:MAX_NAMED], *([f"and {count(more, 'other')}"] if more > 0 else [])])


def _summary(state: RunState) -> str:
    """`3 of 5 artifacts in place (1 already), 2 not for this node`."""
    phases = [one.phase for one in state.artifacts]
    kept, skipped = phases.count("kept"), phases.count("skipped")
    in_place, wanted = phases.count("placed") + kept, len(phases) - skipped
    already = f" ({kept} already)" if kept else ""
    others = f", {skipped} not for this node" if skipped else ""
    of = "" if in_place == wanted else f"{in_place} of "
    return f"{of}{count(wanted, 'artifact')} in place{already}{others}"
