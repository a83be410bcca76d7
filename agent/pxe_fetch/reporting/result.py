"""What ended an artifact or a run, as the exit code and the words that name it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pxe_fetch.contract.cmdline import KernelArgumentError
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.errors import CannotCreateError, DeadlineError, DiskError, FetchError, NoRoomError, StoppedError
from pxe_fetch.humanize import amount, count, span
from pxe_fetch.reporting.run_state import RunState

# Codes on which the unit starts the agent again (RestartPreventExitStatus= has the others).
RESTARTED = frozenset((Exit.NETWORK, Exit.BUG, Exit.IO, Exit.DEADLINE, Exit.INTEGRITY))

NAMED = 8  # artifacts that the one line of the result names

_OURS = frozenset(  # causes that are not to be found at the server
    error.reference for error in (NoRoomError, DiskError, CannotCreateError, DeadlineError, StoppedError)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How something ended: its exit code, the stable reference of its cause, and a sentence."""

    exit_code: Exit
    cause: str | None = None
    message: str = ""
    attempts: int = 0  # 0: nobody was asked, or it failed when all of it had come
    bytes_received: int = 0  # in these
    url: str | None = None  # the mirror that it is about, or that was asked last; redacted

    @property
    def sentence(self) -> str:
        """What happened and, where it happened at a server, at which."""
        return f"{self.url}: {self.message}" if self.url and self.cause not in _OURS else self.message

    @property
    def failed(self) -> bool:
        """Whether something is missing that had to be there."""
        return self.exit_code not in {Exit.DONE, Exit.DEGRADED}


def result_of_error(error: Exception) -> Result:
    """The result that `error` is. Whatever the agent has no name for is a bug of its own."""
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
            more = f" (and {count(len(others), 'problem')} more)" if others else ""
            return Result(exit_code=Exit.CONFIG, cause=first.reference, message=f"{first}{hint}{more}")
        case KernelArgumentError():
            return Result(exit_code=Exit.CONFIG, cause="kernel-argument-invalid", message=str(error))
    message = f"a bug in pxe-fetch: {type(error).__name__}: {error}"
    return Result(exit_code=Exit.BUG, cause="bug", message=message)


def of_run(state: RunState, *, failures: Mapping[str, Result]) -> Result:
    """How a run ended whose artifacts all have ended; `failures` has those that failed, by name.

    The exit code is that of a required artifact's failure, in the order of the configuration; those that a restart may
    mend come first: the unit then tries again, what can be had is had, and what is left in the end names itself.
    """
    artifacts = state.artifacts
    required = [one for one in artifacts if one.required and one.name in failures]
    optional = [one for one in artifacts if not one.required and one.name in failures]
    received = sum(one.bytes_received for one in artifacts)
    took = span(time.monotonic() - state.began)
    if required:
        first = next((one for one in required if failures[one.name].exit_code in RESTARTED), required[0])
        why = failures[first.name]
        others = [one.name for one in (*required, *optional) if one is not first]
        also = f"; failed too: {_some(others, ', ')}" if others else ""
        message = f"{first.name}: {why.sentence}{also} ({_places(state)}, {took})"
        return Result(exit_code=why.exit_code, cause=why.cause, message=message)
    summary = f"{_places(state)}, {amount(received)} received, {took}"
    if not optional:
        return Result(exit_code=Exit.DONE, message=summary)
    first = optional[0]
    missing = _some([f"{one.name}: {failures[one.name].sentence}" for one in optional], "; ")
    return Result(
        exit_code=Exit.DEGRADED,
        cause=failures[first.name].cause,
        message=f"{summary}; without {count(len(optional), 'optional artifact')}: {missing}",
    )


def _some(things: Sequence[str], between: str) -> str:
    """The first of `things`, and how many others there are: the journal has a line for each."""
    left = len(things) - NAMED
    return between.join([*things[:NAMED], *([f"and {count(left, 'other')}"] if left > 0 else [])])


def _places(state: RunState) -> str:
    """3 of 5 artifacts in place (1 of them already), 2 not for this node."""
    phases = [one.phase for one in state.artifacts]
    kept, skipped = phases.count("kept"), phases.count("skipped")
    here, wanted = phases.count("placed") + kept, len(phases) - skipped
    already = f" ({kept} already)" if kept else ""
    others = f", {skipped} not for this node" if skipped else ""
    of = "" if here == wanted else f"{here} of "
    return f"{of}{count(wanted, 'artifact')} in place{already}{others}"
