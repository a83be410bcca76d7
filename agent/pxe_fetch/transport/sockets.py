"""Connecting and waiting on a socket with an eye on the clock, and what an error of one means."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.problem import printable
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import NetworkError, SilentError

LOOK = 0.25  # seconds between two looks at the deadline, and between two addresses that are tried (RFC 8305, 5)
_LONGEST = 120  # characters of a server's words

# Of names with several addresses, the one that answered last: a dead one is not tried first by each connection.
_answered: dict[tuple[str, int], Any] = {}
_failed: dict[tuple[str, int], Any] = {}  # the one that did connect, and then brought no answer, is tried last

_Address = tuple[socket.AddressFamily, int, int, str, Any]  # family, type, protocol, name, address (getaddrinfo)


class ConnectTimeoutError(TimeoutError):
    """There was no connection within the time given to making one."""


def connect(host: str, port: int, *, seconds: float, deadline: Deadline) -> socket.socket:
    """A connection to `host`, whichever of its addresses answers first (RFC 8305), within `seconds` in all.

    The socket's timeout is `seconds` too. Raises ConnectTimeoutError, the OSError of the last address that refused,
    UnicodeError for a name that cannot be looked up, DeadlineError and StoppedError.
    """
    until = time.monotonic() + seconds
    addresses = [*resolve(host, port, seconds=seconds, deadline=deadline)]
    trying: dict[int, socket.socket] = {}
    poll = select.poll()
    error: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        while addresses or trying:
            deadline.check()
            if addresses:
                family, kind, protocol, _, address = addresses.pop(0)
                try:
                    sock = socket.socket(family, kind, protocol)
                except OSError as unsupported:  # a kernel without IPv6, say: the other addresses may do
                    error = unsupported
                    continue
                trying[sock.fileno()] = sock
                sock.setblocking(False)
                poll.register(sock, select.POLLOUT)
                if (code := sock.connect_ex(address)) not in {0, errno.EINPROGRESS}:
                    error = OSError(code, os.strerror(code))
                    poll.unregister(sock)
                    trying.pop(sock.fileno()).close()
                    continue
            left = until - time.monotonic()
            if left <= 0:
                raise ConnectTimeoutError
            for number, _ in poll.poll(min(LOOK, left) * 1000):
                poll.unregister(number)
                sock = trying[number]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    sock.settimeout(seconds)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    # A firewall that has forgotten a connection swallows what is sent; a slow server acknowledges it.
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
                    trust(host, port, sock.getpeername())
                    return trying.pop(number)
                error = OSError(code, os.strerror(code))
                trying.pop(number).close()
        raise error
    finally:
        for sock in trying.values():
            sock.close()


def resolve(
    host: str, port: int, *, seconds: float, deadline: Deadline, kind: socket.SocketKind = socket.SOCK_STREAM
) -> Sequence[_Address]:
    """The addresses of `host`, the one that answered last first, else IPv6 and IPv4 in turn (RFC 8305, 4).

    Raises UnicodeError, DeadlineError, StoppedError, and gaierror, also if the answer takes longer than `seconds`: the
    look-up then goes on in its thread.
    """
    until = time.monotonic() + seconds
    name = host.encode("ascii")  # bytes do not go through the codec of IDNA, which takes milliseconds to import
    with suppress(socket.gaierror):
        return socket.getaddrinfo(name, port, type=kind, flags=socket.AI_NUMERICHOST)
    answers: SimpleQueue[Sequence[_Address] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(name, port, type=kind))
        except Exception as error:
            answers.put(error)

    Thread(target=look_up, name="look-up", daemon=True).start()
    while True:
        deadline.check()
        left = until - time.monotonic()
        if left <= 0:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {seconds:g} s")
        try:
            answer = answers.get(timeout=min(LOOK, left))
        except Empty:
            continue
        if isinstance(answer, Exception):
            raise answer
        first = [each for each in answer if each[0] == answer[0][0]]
        others = [each for each in answer if each[0] != answer[0][0]]
        found = [each for each in chain.from_iterable(zip_longest(first, others)) if each]
        bad, good = _failed.get((host, port)), _answered.get((host, port))
        return sorted(found, key=lambda each: (each[4] == bad, each[4] != good))


def trust(host: str, port: int, address: Any) -> None:  # noqa: ANN401  as getaddrinfo has it
    """Try `address` of `host` first from now on: it has answered."""
    _answered[host, port] = address


def distrust(host: str, port: int) -> None:
    """Try other addresses of `host` before the one that answered last: no more than the connection came from it."""
    if address := _answered.pop((host, port), None):
        _failed[host, port] = address


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
        if poll.poll(max(0.0, min(LOOK, left)) * 1000):
            return True
        if left <= LOOK:
            return False


def translate_os_error(error: OSError, *, host: str, proxy: str | None = None, timeouts: Timeouts) -> NetworkError:
    """The error for what a socket raised while talking to `host`, through `proxy` if given."""
    asked = f"the proxy {proxy}" if proxy else host
    peer = f"{host} (through {asked})" if proxy else host
    match error:
        case socket.gaierror():
            return NetworkError(f"the name {f'of {asked}' if proxy else host} cannot be resolved: {error.strerror}")
        case ConnectTimeoutError():
            return NetworkError(f"no connection to {peer} within {timeouts.connect:g} s")
        case ConnectionRefusedError():
            return NetworkError(f"{asked} refused the connection")
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return NetworkError(f"{peer} broke the connection")
        case TimeoutError() if not error.errno:
            return SilentError(f"{peer} was silent for {timeouts.read:g} s")
    return NetworkError(f"{peer} cannot be reached: {error.strerror or type(error).__name__}")


def quoted(text: str) -> str:
    """What a server says of an error, as it may be shown: one line, not long."""
    words = printable(text[:_LONGEST]).strip()
    return f" ({words})" if words else ""
