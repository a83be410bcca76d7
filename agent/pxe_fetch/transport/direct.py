"""A connection without TLS, as http.client makes it, but without http.client: importing it takes 11 ms."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from pxe_fetch.deadline import Deadline

_LABEL = 64  # characters that a part of a host's name is shorter than (RFC 1035 2.3.4)


class ConnectTimeoutError(TimeoutError):
    """There was no connection in the time given to making one."""


class Connection(Protocol):
    """A way to a server or a proxy, for one request at a time."""

    sock: Any  # a socket, of whichever kind; None until it is connected

    def connect(self, seconds: float, *, silence: float, deadline: Deadline) -> None:
        """Connect within `seconds`, of which each step may take so many.

        A proxy that is asked for a tunnel may be silent for `silence`. Raises ConnectTimeoutError, what `deadline`
        raises, OSError, UnicodeError and what http.client raises.
        """

    def close(self) -> None:
        """Close the socket."""


class Direct:
    """To a server, or to a proxy that is sent whole URLs."""

    def __init__(self, host: str, port: int) -> None:
        self.sock: Any = None
        # As bytes such a name need not go through IDNA, another import, which would leave it as it is.
        is_plain = host.isascii() and all(0 < len(label) < _LABEL for label in host.split("."))
        self._place: Any = (host.encode() if is_plain else host, port)

    def connect(self, seconds: float, **_: object) -> None:
        try:
            self.sock = socket.create_connection(self._place, seconds)
        except TimeoutError as error:
            raise ConnectTimeoutError from error
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        if self.sock:
            self.sock.close()
            self.sock = None
