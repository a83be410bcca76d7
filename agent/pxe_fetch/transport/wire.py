"""http.client's response, made patient: each wait for a byte looks at the clock, and bytes that are there are given."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket

from pxe_fetch.clock import Patience

SLICE = 0.25  # seconds between two looks at the clock while no byte comes
_HEAD = 8192  # bytes read at a time while the header is parsed


class PatientResponse(http.client.HTTPResponse):
    """http.client's response, reading through `_PatientSocket`; `take` gives what is there."""

    def __init__(self, sock: socket.socket, *, patience: Patience, silence: float, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        # The connection's own reader stays below ours: it counts as a user of the socket until it is closed.
        self._reader = _PatientSocket(sock, self.fp.detach(), patience=patience, silence=silence)
        self.fp = io.BufferedReader(self._reader, _HEAD)
        self._read_ahead = True  # whether bytes of the body may have come with the header

    def begin(self) -> None:
        super().begin()
        self._reader.header_ends()

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


class _PatientSocket(io.RawIOBase):
    """Reads a connected socket in slices of time, so that a stop or a deadline is seen while nothing comes.

    Raises TimeoutError after `silence` seconds without a byte; a header has to be complete within that time.
    """

    def __init__(self, sock: socket.socket, under: io.RawIOBase, *, patience: Patience, silence: float) -> None:
        super().__init__()
        self._socket = sock
        self._under = under
        self._patience = patience
        self._silence = silence
        self._since: float | None = patience.clock.now()  # of the header; None in the body
        self._before = sock.gettimeout()
        sock.settimeout(min(SLICE, silence))

    def header_ends(self) -> None:
        self._since = None

    def hurry(self, seconds: float) -> None:
        self._silence = min(self._silence, seconds)
        self._socket.settimeout(min(SLICE, self._silence))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        clock = self._patience.clock
        since = clock.now() if self._since is None else self._since
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
            return count

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):  # it is closed already
                # After a proxy's answer to CONNECT the TLS handshake follows, which may take longer than a slice.
                self._socket.settimeout(self._before)
            self._under.close()
        super().close()
