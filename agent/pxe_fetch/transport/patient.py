"""http.client's response, which has met the world's servers, read with deadline."""

from __future__ import annotations

import http.client
import io
import socket

from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import NetworkError
from pxe_fetch.transport.response import HEAD, EarlyEndError
from pxe_fetch.transport.wire import Wire

_INTERIM = frozenset(range(102, 200))  # answers that another follows: RFC 9110 15.2; http.client knows 100 alone


def proxy_response(
    sock: socket.socket, method: str | None = None, *, deadline: Deadline, silence: float
) -> http.client.HTTPResponse:
    """A proxy's answer to CONNECT, not read yet; the socket goes on to be used otherwise after it."""
    return PatientResponse(Wire(sock, deadline=deadline, silence=silence, lent=True), method=method)


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
        """At least one byte of the body into `view`, 0 at its end; raises EarlyEndError if it is early.

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
                raise EarlyEndError(self.length)
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
            wanted = min(len(view), HEAD)
            data = self.fp.read1(wanted)
            self._read_ahead = len(data) == wanted < HEAD
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
        return io.BufferedReader(_File(self._wire), HEAD)


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
