"""A socket read with deadline: each wait for a byte looks at the clock, and bytes that are there are given."""

from __future__ import annotations

import contextlib
import socket

from pxe_fetch.deadline import Deadline

SLICE = 0.25  # seconds between two looks at the clock while no byte comes
_WORTH = 8192  # bytes of a TLS record, 16 KiB at most (RFC 8446 5.1), after which others may have come with it


class NoAnswerError(ConnectionResetError):
    """The connection ended before its header did."""


class Wire:
    """Reads a connected socket in slices of time, so that a stop or a deadline is seen while nothing comes.

    Raises TimeoutError after `silence` seconds without a byte; a header has to be complete within that time. The socket
    stays open.
    """

    def __init__(self, sock: socket.socket, *, deadline: Deadline, silence: float, lent: bool = False) -> None:
        """`lent`: the socket gets back its own timeout with `let_go`."""
        self._socket = sock
        self._deadline = deadline
        self._silence = silence
        self._since: float | None = deadline.clock.now()  # of the header; None in the body
        self._before = sock.gettimeout() if lent else None
        self._secure = type(sock) is not socket.socket and _is_tls(sock)
        self._late: OSError | None = None  # came behind bytes that had to be given first
        self._returned = b""
        self._wait(min(SLICE, silence))

    def _wait(self, seconds: float) -> None:
        if self._socket.gettimeout() != seconds:
            self._socket.settimeout(seconds)

    def give_back(self, data: bytes) -> None:
        """Have `data` read once more, before what follows it."""
        self._returned = data + self._returned

    def header_ends(self) -> None:
        """From now on it is the silence between two bytes that may not last too long."""
        self._since = None

    def hurry(self, seconds: float) -> None:
        """Wait no longer than `seconds` for a byte from now on."""
        self._silence = min(self._silence, seconds)
        self._wait(min(SLICE, self._silence))

    def readinto(self, buffer: memoryview) -> int:
        """What is there into `buffer`, at least one byte; 0 at the end of the body."""
        if self._returned:
            return self._once_more(buffer)
        clock = self._deadline.clock
        since = clock.now() if self._since is None else self._since
        if self._late:
            raise self._late
        while True:
            self._deadline.check()
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
                raise NoAnswerError("the connection ended in the header")
            if self._secure and _WORTH <= count < len(buffer):
                count += self._at_once(buffer[count:])
            return count

    def _once_more(self, view: memoryview) -> int:
        data, self._returned = self._returned[: len(view)], self._returned[len(view) :]
        view[: len(data)] = data
        return len(data)

    def _at_once(self, view: memoryview) -> int:
        """What else there is without waiting: TLS gives a record at a time, and each way through all layers costs."""
        import ssl

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

    def let_go(self) -> None:
        """The response is over."""
        if self._before is not None:
            with contextlib.suppress(OSError):  # it is closed already
                # After a proxy's answer to CONNECT the TLS handshake follows, which may take longer than a slice.
                self._socket.settimeout(self._before)
            self._before = None


def _is_tls(sock: socket.socket) -> bool:
    import ssl  # 10 ms, which a run without https need not pay

    return isinstance(sock, ssl.SSLSocket)
