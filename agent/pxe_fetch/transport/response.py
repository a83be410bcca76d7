"""Answers to requests: http.client's where there is anything to it, a small one of our own where it is plain."""

from __future__ import annotations

import socket
from typing import Protocol

from pxe_fetch.deadline import Deadline
from pxe_fetch.transport import plain
from pxe_fetch.transport.wire import Wire

HEAD = 8192  # bytes read at a time while the header is parsed


class EarlyEndError(Exception):
    """The connection ended `missing` bytes before the body did; None where nobody knows how many."""

    def __init__(self, missing: int | None) -> None:
        super().__init__(missing)
        self.missing = missing


class Response(Protocol):
    """An answer whose header was read."""

    status: int
    chunked: bool
    will_close: bool

    def field(self, name: str) -> str | None:
        """The header field `name`; None where it is missing."""

    def take(self, view: memoryview) -> int:
        """At least one byte of the body into `view`, 0 at its end; raises EarlyEndError if it is early.

        It never waits for more once it has something, so nothing is lost when the peer goes silent.
        """

    def is_finished(self) -> bool:
        """Whether the whole body was read, so that the connection may serve another request."""

    def hurry(self, seconds: float) -> None:
        """Wait no longer than `seconds` for a byte from now on."""

    def close(self) -> None:
        """Let go of the body; the connection stays."""


def respond(sock: socket.socket, *, deadline: Deadline, silence: float, method: str) -> Response:
    """The answer to the request that was sent by `sock`. Raises what http.client, sockets and `deadline` raise."""
    wire = Wire(sock, deadline=deadline, silence=silence)
    beginning = bytearray(HEAD)
    data = bytes(memoryview(beginning)[: wire.readinto(memoryview(beginning))])
    header = plain.header(data)
    if header:
        wire.header_ends()
        wire.give_back(data[header.size :])
        return PlainResponse(wire, header)
    wire.give_back(data)
    from pxe_fetch.transport.patient import PatientResponse  # http.client takes 11 ms to import

    response = PatientResponse(wire, method=method)
    response.begin()
    return response


class PlainResponse:
    """A file of known length on a connection that is kept."""

    chunked = False
    will_close = False

    def __init__(self, wire: Wire, header: plain.Header) -> None:
        self._wire = wire
        self._fields = header.fields
        self._left = header.length
        self.status = header.status
        self.hurry = wire.hurry

    def field(self, name: str) -> str | None:
        return self._fields.get(name.lower())

    def take(self, view: memoryview) -> int:
        left = self._left
        if not left or not view:
            return 0
        count = self._wire.readinto(view[:left] if len(view) > left else view)
        if not count:
            raise EarlyEndError(left)
        self._left = left - count
        return count

    def is_finished(self) -> bool:
        return not self._left

    def close(self) -> None:
        """There is nothing to let go of."""
