"""How an artifact or a run ended, and why it failed.

Each error has an exit code and a stable reference, the `cause` in state.json.
"""

from __future__ import annotations

from math import inf

from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.problem import ProblemError, printable
from pxe_fetch.contract.quantity import count
from pxe_fetch.contract.record import record


class FetchError(Exception):
    """Base class."""

    exit_code: Exit = Exit.BUG
    reference: str = "internal"
    limit: float = 1  # errors of this kind from one mirror until it is dropped
    is_counted: bool = True  # against retry.attempts_without_progress

    # About the download that it ended; download.retry sets them.
    attempts: int = 0
    bytes_received: int = 0  # from the network, in this run
    url: str | None = None  # redacted; the mirror that it is about, or the one that was asked last

    def __init_subclass__(cls, **attributes: Exit | str | float) -> None:
        """`attributes` are those above that the subclass has otherwise."""
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status  # of HTTP, or of FTP's reply

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later, so that it is retried."""
        return self.limit > 1

    def __str__(self) -> str:
        """The message on one line of printable text: parts of it may come from a server or an archive."""
        return printable(super().__str__())


class NetworkError(FetchError, exit_code=Exit.NETWORK, reference="network", limit=inf):
    """No connection, a broken one, or a server that cannot answer now (408, 425, 429, 5xx)."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after  # seconds, from the server


class SilentError(NetworkError):
    """No byte came within `timeouts.read`."""


class SlowError(NetworkError):
    """Bytes came, but fewer than `timeouts.min_rate`, or far fewer than another mirror sends."""


class OvertakenError(SlowError, is_counted=False):
    """A stream was ended because another mirror would download the rest much faster."""


class LimitedError(NetworkError, is_counted=False):
    """A host refuses this stream, because it serves this node as many as it would."""


class NotFoundError(NetworkError, reference="not-found", limit=4):
    """404: the mirror may not be in sync yet, so it is retried, but only a few times."""


class RangeError(NetworkError, reference="range"):
    """The response is not the range that was requested (RFC 9110, section 14)."""


class RefusedRangeError(RangeError):
    """A range was refused in a way that may be meant for the file."""


class RefusedError(FetchError, exit_code=Exit.REFUSED, reference="refused"):
    """The server refused (401, 403, 410); another attempt would be refused too."""


class TrustError(FetchError, exit_code=Exit.TRUST, reference="tls-trust"):
    """The server's certificate is not trusted. `transient` while the node's clock is not synchronised.

    Not `is_counted` if the wrong clock is the likely cause: waiting fixes that.
    """


class IntegrityError(FetchError, exit_code=Exit.INTEGRITY, reference="integrity", limit=2):
    """The bytes do not have the digest in the configuration: once it may be the wire, twice it is the file."""

    def __init__(self, message: str, *, expected: str, found: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class DeadlineError(FetchError, exit_code=Exit.DEADLINE, reference="deadline"):
    """The deadline of the artifact or of the run has passed."""


class PartInUseError(DeadlineError):
    """Another process is downloading or installing the same destination, and did not end in time."""


class StoppedError(FetchError, exit_code=Exit.DEADLINE, reference="stopped"):
    """The run was stopped (SIGTERM); the part files stay for the next one. EX_TEMPFAIL of sysexits(3)."""


class NoRoomError(FetchError, exit_code=Exit.NO_ROOM, reference="no-room"):
    """It does not fit on the file system, or in memory if that is a tmpfs."""


class ClaimedSizeError(NoRoomError, limit=2):
    """The size that a mirror claims does not fit; another mirror may claim less."""


class CannotCreateError(FetchError, exit_code=Exit.CANNOT_CREATE, reference="cannot-create"):
    """The destination cannot be created: read-only, unknown owner, a directory in its place."""


class DiskError(FetchError, exit_code=Exit.IO, reference="io"):
    """Reading or writing a local file failed."""


class PolicyError(FetchError, exit_code=Exit.REFUSED, reference="policy"):
    """The agent's own rules forbid it: an unpinned configuration by plain http, a path outside allowed_roots."""


# The unit restarts the agent after these (all others are in its RestartPreventExitStatus=).
RESTARTED = frozenset((Exit.NETWORK, Exit.BUG, Exit.IO, Exit.DEADLINE, Exit.INTEGRITY))

# About this node or a deadline: no server has to do with them, and no mirror can help.
OF_THE_NODE = (CannotCreateError, DiskError, NoRoomError, DeadlineError, StoppedError)


def is_final(error: BaseException) -> bool:
    """Whether `error` ends a download: it is about this node or a deadline, so no mirror can help."""
    return isinstance(error, OF_THE_NODE) and not isinstance(error, ClaimedSizeError)


def unforeseen(error: Exception) -> FetchError:
    """The unexpected `error` as a FetchError, which has an exit code."""
    found = FetchError(f"a fault of pxe-fetch itself: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


@record
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
        is_of_the_node = self.cause in {error.reference for error in OF_THE_NODE}
        return f"{self.url}: {self.message}" if self.url and not is_of_the_node else self.message

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
        case MemoryError():
            return Result(exit_code=Exit.IO, cause="memory", message="the node has too little memory for the agent")
    return Result(exit_code=Exit.BUG, cause="bug", message=f"a bug in pxe-fetch: {type(error).__name__}: {error}")
