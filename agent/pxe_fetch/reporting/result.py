"""How an artifact or a run ended: exit code, cause, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from pxe_fetch.contract.cmdline import KernelArgumentError
from pxe_fetch.contract.exits import Exit
from pxe_fetch.contract.problem import ProblemError
from pxe_fetch.errors import CannotCreateError, DeadlineError, DiskError, FetchError, NoRoomError, StoppedError
from pxe_fetch.humanize import count

# The unit restarts the agent after these (all others are in its RestartPreventExitStatus=).
RESTARTED = frozenset((Exit.NETWORK, Exit.BUG, Exit.IO, Exit.DEADLINE, Exit.INTEGRITY))

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
            first = error.problems[0]
            hint = f" (hint: {first.hint})" if first.hint else ""
            more = f" (and {count(error.count - 1, 'more problem')})" if error.count > 1 else ""
            return Result(exit_code=Exit.CONFIG, cause=first.reference, message=f"{first}{hint}{more}")
        case KernelArgumentError():
            return Result(exit_code=Exit.CONFIG, cause="kernel-argument-invalid", message=str(error))
        case MemoryError():
            return Result(exit_code=Exit.IO, cause="memory", message="the node has too little memory for the agent")
    return Result(exit_code=Exit.BUG, cause="bug", message=f"a bug in pxe-fetch: {type(error).__name__}: {error}")
