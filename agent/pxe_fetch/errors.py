"""What can end an artifact or a run: each error carries its exit code and a stable reference."""

from __future__ import annotations

from pxe_fetch.contract.exits import Exit


class FetchError(Exception):
    """The cause of a failure. `transient` says whether the same request may yet succeed."""

    exit_code: Exit = Exit.BUG
    reference: str = "internal"
    transient: bool = False
    is_counted: bool = True  # among the attempts without progress, of which there may not be too many

    # What had happened to the artifact until then; filled in by download.download.
    attempts: int = 0
    bytes_received: int = 0  # over the wire in this run
    url: str | None = None  # the mirror that it is about, or that was asked last; redacted


class NetworkError(FetchError):
    """No connection, a broken one, or a server that says to come again; every mirror and attempt is used up."""

    exit_code = Exit.NETWORK
    reference = "network"
    transient = True

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after  # seconds the server asked for


class NotFoundError(NetworkError):
    """404: perhaps a mirror that is not in sync yet, so it has a small budget of its own."""

    reference = "not-found"


class RangeError(NetworkError):
    """The server did not give the range that was asked for, or something else under its name."""

    reference = "range"


class RefusedError(FetchError):
    """The server (401, 403, 410) or a policy says no; asking again changes nothing."""

    exit_code = Exit.REFUSED
    reference = "refused"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TrustError(FetchError):
    """The server's certificate is not trusted. `transient` while the clock is not synchronised yet.

    Not counted (`is_counted`) where it is most likely the clock's fault, which is put right by waiting.
    """

    exit_code = Exit.TRUST
    reference = "tls-trust"

    def __init__(self, message: str, *, transient: bool = False, is_counted: bool = True) -> None:
        super().__init__(message)
        self.transient = transient
        self.is_counted = is_counted


class IntegrityError(FetchError):
    """The bytes are not those that the configuration names."""

    exit_code = Exit.INTEGRITY
    reference = "integrity"
    transient = True

    def __init__(self, message: str, *, expected: str, found: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class DeadlineError(FetchError):
    """The time given to the artifact or to the run is over."""

    exit_code = Exit.DEADLINE
    reference = "deadline"


class StoppedError(FetchError):
    """The run was told to stop (SIGTERM); what has arrived is kept for the next one."""

    exit_code = Exit.DEADLINE  # EX_TEMPFAIL of sysexits(3): come again
    reference = "stopped"


class NoRoomError(FetchError):
    """The file system (or memory, on tmpfs) cannot hold it."""

    exit_code = Exit.NO_ROOM
    reference = "no-room"


class CannotCreateError(FetchError):
    """The destination cannot be made: read-only, no such owner, something else stands there."""

    exit_code = Exit.CANNOT_CREATE
    reference = "cannot-create"


class DiskError(FetchError):
    """Reading or writing a local file failed."""

    exit_code = Exit.IO
    reference = "io"


class PolicyError(FetchError):
    """What is asked for is not allowed: an unpinned configuration by plain http, a path outside the roots."""

    exit_code = Exit.REFUSED
    reference = "policy"
