"""One request at a server of ours, and the means to answer it."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fakes.content import Content


class Fault(Protocol):
    """What happens to one request."""

    def answer(self, exchange: Exchange) -> None:
        """Send whatever is to be sent; `exchange.keep = False` closes the connection afterwards."""


@dataclass(kw_only=True)
class Asked:
    """One request as it came, and what was sent for it."""

    connection: int
    method: str
    path: str
    fields: Mapping[str, str]  # names in lower case
    body: bytes = b""
    at: float = field(default_factory=time.time)
    fault: str = ""
    status: int | None = None
    sent: int = 0  # bytes of the body

    @property
    def range(self) -> str | None:
        return self.fields.get("range")

    @property
    def if_range(self) -> str | None:
        return self.fields.get("if-range")


class GoneError(Exception):
    """The client or the server itself closed the connection."""


class Exchange:
    """One request and the means to answer it, down to the byte."""

    def __init__(self, connection: socket.socket, *, closing: socket.socket, asked: Asked, content: Content) -> None:
        self.asked = asked
        self.content = content
        self.keep = asked.fields.get("connection", "").lower() != "close"
        self._connection = connection
        self._closing = closing  # readable once the server is closed

    def send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise GoneError from error

    def head(self, status: int, fields: Mapping[str, str | int | None]) -> None:
        """The status line and the header; fields that are None are left out."""
        self.asked.status = status
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{k}: {v}" for k, v in fields.items() if v is not None), "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))

    def send_body(self, data: bytes, *, framed: bytes | None = None) -> None:
        """`data` counts as sent; `framed` is what goes over the wire if that is something else (a chunk)."""
        if self.asked.method != "HEAD":
            self.send(data if framed is None else framed)
            self.asked.sent += len(data)

    def reset(self) -> None:
        """Break the connection with a TCP reset, once what was sent has arrived."""
        self.drained()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.keep = False

    def drained(self) -> None:
        """Wait until the peer's kernel has taken what was sent: a reset would overtake it."""
        time.sleep(0.03)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, unless the client goes away or the server is closed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self._connection, self._closing], [], [], left)
            if readable:
                raise GoneError
