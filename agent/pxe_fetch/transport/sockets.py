"""Waiting on a socket with an eye on the clock, and what an error of one means; without requests, which is costly."""

from __future__ import annotations

import select
import socket

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import NetworkError

SLICE = 0.25  # seconds between two looks at the clock while no byte comes
_LONGEST = 120  # characters of a server's words


def readable(sock: socket.socket, *, deadline: Deadline, seconds: float) -> bool:
    """Whether `sock` has something to read (its end, an error) within `seconds`; looks at `deadline` meanwhile.

    Raises DeadlineError and StoppedError.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    until = deadline.clock.now() + seconds
    while True:
        deadline.check()
        left = until - deadline.clock.now()
        if poll.poll(max(0.0, min(SLICE, left)) * 1000):
            return True
        if left <= SLICE:
            return False


def explain(error: OSError, *, host: str, timeouts: Timeouts) -> NetworkError:
    """The error for what a socket raised while talking to `host`."""
    match error:
        case socket.gaierror():
            return NetworkError(f"the name of {host} cannot be resolved: {error.strerror}")
        case ConnectionRefusedError():
            return NetworkError(f"{host} refused the connection")
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return NetworkError(f"{host} broke the connection")
        case TimeoutError():
            return NetworkError(f"{host} was silent for {timeouts.read:g} s")
    return NetworkError(f"{host} cannot be reached: {error.strerror or type(error).__name__}")


def quoted(text: str) -> str:
    """What a server says of an error, as it may be shown: one line, not long."""
    words = "".join(c if c.isprintable() else " " for c in text[:_LONGEST]).strip()
    return f" ({words})" if words else ""
