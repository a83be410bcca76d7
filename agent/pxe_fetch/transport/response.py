"""Answers to requests: http.client's where there is anything to it, a small one of our own where it is plain."""

from __future__ import annotations

import http.client
import io
import socket
from typing import Protocol

from pxe_fetch.clock import Patience
from pxe_fetch.errors import NetworkError
from pxe_fetch.transport import plain
from pxe_fetch.transport.wire import Wire

_HEAD = 8192  # bytes read at a time while the header is parsed
_INTERIM = frozenset(range(102, 200))  # answers that another follows: RFC 9110 15.2; http.client knows 100 alone


class Response(Protocol):
    """An answer whose header was read."""

    status: int
    chunked: bool
    will_close: bool

    def field(self, name: str) -> str | None:
        """The header field `name`; None where it is missing."""

    def take(self, view: memoryview) -> int:
        """At least one byte of the body into `view`, 0 at its end; raises http.client.IncompleteRead if it is early.

        It never waits for more once it has something, so nothing is lost when the peer goes silent.
        """

    def is_finished(self) -> bool:
        """Whether the whole body was read, so that the connection may serve another request."""

    def hurry(self, seconds: float) -> None:
        """Wait no longer than `seconds` for a byte from now on."""

    def close(self) -> None:
        """Let go of the body; the connection stays."""


def respond(sock: socket.socket, *, patience: Patience, silence: float, method: str) -> Response:
    """The answer to the request that was sent by `sock`. Raises what http.client, sockets and `patience` raise."""
    wire = Wire(sock, patience=patience, silence=silence)
    beginning = bytearray(_HEAD)
    data = bytes(memoryview(beginning)[: wire.readinto(memoryview(beginning))])
    header = plain.header(data)
    if header:
        wire.header_ends()
        wire.give_back(data[header.size :])
        return PlainResponse(wire, header)
    wire.give_back(data)
    response = PatientResponse(wire, method=method)
    response.begin()
    return response


def proxy_response(
    sock: socket.socket, method: str | None = None, *, patience: Patience, silence: float
) -> http.client.HTTPResponse:
    """A proxy's answer to CONNECT, not read yet; the socket goes on to be used otherwise after it."""
    return PatientResponse(Wire(sock, patience=patience, silence=silence, lent=True), method=method)


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
            raise http.client.IncompleteRead(b"", left)
        self._left = left - count
        return count

    def is_finished(self) -> bool:
        return not self._left

    def close(self) -> None:
        """There is nothing to let go of."""


class PatientResponse(http.client.HTTPResponse):
    """http.client's response, reading through a Wire; `take` gives what is there."""

    def __init__(self, wire: Wire, *, method: str | None) -> None:
        self._wire = wire
        super().__init__(_Source(wire), method=method)  # type: ignore[arg-type]  # it is asked for a file alone
        self._read_ahead = True  # whether bytes of the body may have come with the header

    def begin(self) -> None:
        super().begin()
        while self.status in _INTERIM:
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first
            super().begin()
        self._check_length()
        self._wire.header_ends()

    def field(self, name: str) -> str | None:
        """The header field `name`; None where it is missing."""
        return self.headers.get(name)

    def take(self, view: memoryview) -> int:
        """At least one byte of the body into `view`, 0 at its end; raises http.client.IncompleteRead if it is early.

        Unlike `readinto` it never waits for more once it has something, so nothing is lost when the peer goes silent.
        """
        if self.isclosed() or not view:
            return 0
        if self.chunked:
            return _copy(self.read1(len(view)), view)
        if self.length is not None:
            if self.length == 0:
                self.close()
                return 0
            view = view[: self.length]
        count = self._take(view)
        if self.length is not None:
            if count == 0:
                raise http.client.IncompleteRead(b"", self.length)
            self.length -= count
        if count == 0 or self.length == 0:
            self.close()
        return count

    def is_finished(self) -> bool:
        """Whether the whole body was read, so that the connection may serve another request."""
        if self.length == 0 and not self.chunked:
            self.close()
        return self.isclosed()

    def hurry(self, seconds: float) -> None:
        """Wait no longer than `seconds` for a byte from now on."""
        self._wire.hurry(seconds)

    def _check_length(self) -> None:
        """Raise NetworkError for lengths that contradict each other: RFC 9112 6.3."""
        lengths = self.headers.get_all("Content-Length", [])
        if len({part.strip() for length in lengths for part in length.split(",")}) > 1:
            raise NetworkError("the server sent a header that contradicts itself")

    def _take(self, view: memoryview) -> int:
        if self._read_ahead:
            # read1 gives what the buffer holds, or else makes one read of its own and leaves the buffer empty.
            wanted = min(len(view), _HEAD)
            data = self.fp.read1(wanted)
            self._read_ahead = len(data) == wanted < _HEAD
            return _copy(data, view)
        return self._wire.readinto(view)


def _copy(data: bytes, view: memoryview) -> int:
    view[: len(data)] = data
    return len(data)


class _Source:
    """What http.client takes for a socket: it wants nothing but a file to read from."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_File(self._wire), _HEAD)


class _File(io.RawIOBase):
    """A wire as a file; closing it lets go of the wire."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._wire.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._wire.let_go()
        super().close()
