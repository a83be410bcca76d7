"""One request at a server of ours, and the means to answer it."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fakes.content import CHUNK, Content
from fakes.peer import Peer

PIECE = 32 * 1024  # bytes of a body that a watched client may not have read when it goes away
_LOOK = 0.00005  # seconds between two looks at whether it has


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
    taken: int = 0  # of these, what the client has read for certain; only where it is watched
    wrong: bool = False  # some of these were not the file's

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

    def __init__(
        self,
        connection: socket.socket,
        *,
        closing: socket.socket,
        asked: Asked,
        content: Content,
        peer: Peer | None = None,
    ) -> None:
        """With a `peer` the client is watched: a piece of the body is sent once it has read what came before."""
        self.asked = asked
        self.content = content
        self.keep = asked.fields.get("connection", "").lower() != "close"
        self.piece = PIECE if peer else CHUNK  # most bytes of the body to send at once
        self._connection = connection
        self._closing = closing  # readable once the server is closed
        self._peer = peer

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
        self._await_reader()

    def send_body(self, data: bytes, *, at: int, framed: bytes | None = None) -> None:
        """`data`, of the file from `at` on; `framed` is what goes over the wire if that is something else (a chunk)."""
        if self.asked.method == "HEAD":
            return
        self.asked.sent += len(data)  # first: the client may have it before we go on
        self.asked.wrong |= data != self.content.read(at, at + len(data))
        self.send(data if framed is None else framed)
        if self._peer:
            self._await_reader()
            self.asked.taken = self.asked.sent

    def _await_reader(self) -> None:
        """Wait until a watched client has read everything."""
        while self._peer and (left := self._peer.unread()) != 0:
            if left is None or select.select([self._closing], [], [], _LOOK)[0]:
                raise GoneError

    def reset(self) -> None:
        """Break the connection with a TCP reset, once what was sent has arrived."""
        self.drained()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.keep = False

    def drained(self) -> None:
        """Wait until the client's kernel has taken what was sent: a reset would overtake it."""
        if not self._peer:
            time.sleep(0.03)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, unless the client goes away or the server is closed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([self._connection, self._closing], [], [], left)
            if readable:
                raise GoneError
