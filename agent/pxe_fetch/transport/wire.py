"""requests' adapter, made patient: every wait for a byte looks at the clock, and bytes that are there are handed over.

One adapter serves all threads of a run and keeps connections alive per host. Its own retries, redirects, cookies,
netrc and environment are off: a plain `send` of a prepared request.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
from collections.abc import Mapping

from pxe_fetch.clock import Patience
from pxe_fetch.errors import PolicyError
from pxe_fetch.transport.lean import lean

lean()

import requests  # noqa: E402  after it was made cheap
from requests.adapters import HTTPAdapter  # noqa: E402
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager  # noqa: E402
from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: E402

Answered = requests.Response

SLICE = 0.25  # seconds between two looks at the clock while no byte comes
_HEAD = 8192  # bytes read at a time while the header is parsed
_POOLS = 64  # hosts whose connections are kept
_KEPT = 64  # connections kept a host; more are made when more threads ask

# Which patience a response that is made in this thread has. urllib3 makes the response objects; there is no way to
# hand one over but this.
_turn = threading.local()


class PatientResponse(http.client.HTTPResponse):
    """http.client's response, reading through `_PatientSocket`; `take` gives what is there."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        # The connection's own reader stays below ours: it counts as a user of the socket until it is closed.
        self._reader = _PatientSocket(sock, self.fp.detach(), patience=_turn.patience, silence=_turn.silence)
        self.fp = io.BufferedReader(self._reader, _HEAD)
        self._read_ahead = True  # whether bytes of the body may have come with the header
        _turn.response = self

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


class _Connection(HTTPConnection):
    response_class = PatientResponse


class _SecureConnection(HTTPSConnection):
    response_class = PatientResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOL_CLASSES = {"http": _Pool, "https": _SecurePool}


class PatientAdapter(HTTPAdapter):
    """requests' adapter over `PatientResponse`; `tls` is for https and for proxies that are asked by https."""

    def __init__(self, *, tls: ssl.SSLContext | None) -> None:
        self._tls = {"ssl_context": tls} if tls else {}
        self._proxy_tls = {"proxy_ssl_context": tls} if tls else {}
        super().__init__(pool_connections=_POOLS, pool_maxsize=_KEPT, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **more: object) -> None:  # noqa: FBT001, FBT002  as requests declares it
        super().init_poolmanager(connections, maxsize, block, **more, **self._tls)
        self.poolmanager.pool_classes_by_scheme = _POOL_CLASSES

    def cert_verify(self, conn: object, url: str, verify: object, cert: object) -> None:
        """The context holds what is trusted; requests would read certifi's bundle for each connection."""

    def proxy_manager_for(self, proxy: str, **more: object) -> ProxyManager:
        proxy_tls = self._proxy_tls if proxy.lower().startswith("https:") else {}
        manager: ProxyManager = super().proxy_manager_for(proxy, **more, **self._tls, **proxy_tls)
        manager.pool_classes_by_scheme = _POOL_CLASSES
        return manager

    def ask(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        proxy: str | None,
        connect: float,
        silence: float,
        patience: Patience,
    ) -> tuple[requests.Response, PatientResponse]:
        """GET `url`: the answer's facts, and its body still unread.

        Raises PolicyError for what cannot be asked for, and whatever requests raises when talking to the server.
        """
        try:
            prepared = requests.Request("GET", url, headers=dict(headers)).prepare()
        except ValueError as error:  # the URL or a header field of the configuration; its text may hold a secret
            raise PolicyError(f"cannot be asked for: {type(error).__name__}") from error
        _turn.patience, _turn.silence, _turn.response = patience, silence, None
        proxies = {"http": proxy, "https": proxy} if proxy else None
        # trust_env is a session's; an adapter looks at nothing but its arguments.
        answer = self.send(prepared, stream=True, timeout=(connect, silence), verify=True, proxies=proxies)
        return answer, _turn.response
