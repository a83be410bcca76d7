"""http.client's response, made patient: each wait for a byte looks at the clock, and bytes that are there are given."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl

from pxe_fetch.clock import Patience
from pxe_fetch.errors import NetworkError
from pxe_fetch.transport import plain

SLICE = 0.25  # seconds between two looks at the clock while no byte comes
_HEAD = 8192  # bytes read at a time while the header is parsed
_WORTH = 8192  # bytes of a TLS record, 16 KiB at most (RFC 8446 5.1), after which others may have come with it
_INTERIM = frozenset(range(102, 200))  # answers that another follows: RFC 9110 15.2; http.client knows 100 alone


class PatientResponse(http.client.HTTPResponse):
    """http.client's response, reading through `_PatientSocket`; `take` gives what is there."""

    def __init__(self, sock: socket.socket, *, patience: Patience, silence: float, method: str | None = None) -> None:
        # Without a method it is a proxy's answer to CONNECT, after which the socket goes on to be used otherwise.
        self._reader = _PatientSocket(sock, patience=patience, silence=silence, lent=method is None)
        super().__init__(_Source(self._reader), method=method)  # type: ignore[arg-type]  # it is asked for a file alone
        self._fields: dict[str, str] | None = None  # names in lower case; None: they are in `headers`
        self._read_ahead = True  # whether bytes of the body may have come with the header

    def begin(self) -> None:
        answer = plain.header(self.fp.peek())
        if answer is None:
            super().begin()
            while self.status in _INTERIM:
                self.headers = self.msg = None  # type: ignore[assignment]  # as before the first
                super().begin()
            self._check_length()
        else:
            self.fp.read(answer.size)
            self.status = self.code = answer.status
            self.version = 11
            self.chunked = self.will_close = False
            self.length = answer.length
            self._fields = answer.fields
        self._reader.header_ends()

    def field(self, name: str) -> str | None:
        """The header field `name`; None where it is missing."""
        return self.headers.get(name) if self._fields is None else self._fields.get(name.lower())

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
        self._reader.hurry(seconds)

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
        return self._reader.readinto(view)


def _copy(data: bytes, view: memoryview) -> int:
    view[: len(data)] = data
    return len(data)


class _Source:
    """What http.client takes for a socket: it wants nothing but a file to read from."""

    def __init__(self, reader: _PatientSocket) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader, _HEAD)


class _PatientSocket(io.RawIOBase):
    """Reads a connected socket in slices of time, so that a stop or a deadline is seen while nothing comes.

    Raises TimeoutError after `silence` seconds without a byte; a header has to be complete within that time. Closing it
    leaves the socket open; one that is `lent` has its own timeout again then.
    """

    def __init__(self, sock: socket.socket, *, patience: Patience, silence: float, lent: bool) -> None:
        super().__init__()
        self._socket = sock
        self._patience = patience
        self._silence = silence
        self._since: float | None = patience.clock.now()  # of the header; None in the body
        self._before = sock.gettimeout() if lent else None
        self._secure = isinstance(sock, ssl.SSLSocket)
        self._late: OSError | None = None  # came behind bytes that had to be given first
        self._wait(min(SLICE, silence))

    def _wait(self, seconds: float) -> None:
        if self._socket.gettimeout() != seconds:
            self._socket.settimeout(seconds)

    def header_ends(self) -> None:
        self._since = None

    def hurry(self, seconds: float) -> None:
        self._silence = min(self._silence, seconds)
        self._wait(min(SLICE, self._silence))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        clock = self._patience.clock
        since = clock.now() if self._since is None else self._since
        if self._late:
            raise self._late
        while True:
            self._patience.check()
            if self._since is not None and clock.now() - since >= self._silence:
                raise TimeoutError("the header took too long")
            try:
                count = self._socket.recv_into(buffer)
            except TimeoutError:
                if clock.now() - since >= self._silence:
                    raise
                continue
            if count == 0 and self._since is not None:
                # http.client would take the end of the connection for the end of the header.
                raise http.client.RemoteDisconnected("the connection ended in the header")
            if self._secure and _WORTH <= count < len(buffer):
                count += self._at_once(buffer[count:])
            return count

    def _at_once(self, view: memoryview) -> int:
        """What else there is without waiting: TLS gives a record at a time, and each way through all layers costs."""
        filled, patient = 0, self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            while filled < len(view) and (count := self._socket.recv_into(view[filled:])):
                filled += count
        except ssl.SSLWantReadError:
            pass
        except OSError as error:
            self._late = error
        finally:
            self._socket.settimeout(patient)
        return filled

    def close(self) -> None:
        if not self.closed and self._before is not None:
            with contextlib.suppress(OSError):  # it is closed already
                # After a proxy's answer to CONNECT the TLS handshake follows, which may take longer than a slice.
                self._socket.settimeout(self._before)
        super().close()
