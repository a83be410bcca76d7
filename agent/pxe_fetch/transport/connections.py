"""Connections by http.client to servers and proxies, kept alive per host and shared by the threads of a run.

Nothing is read from the environment, no cookie is kept, and no request is made twice. docs/decisions/0008 says why it
is http.client that stands here.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from threading import Lock
from typing import NamedTuple

from pxe_fetch.clock import Patience
from pxe_fetch.transport.head import head
from pxe_fetch.transport.origin import Origin, origin, parse
from pxe_fetch.transport.response import Response, proxy_response, respond


class ConnectTimeoutError(TimeoutError):
    """There was no connection in the time given to making one."""


class Way(NamedTuple):
    """Where a connection leads: requests that have the same can share it."""

    secure: bool
    host: str
    port: int
    proxy: str | None


class Sent:
    """A request that is on its way; `answer` must follow, or `close`."""

    def __init__(self, connection: HTTPConnection, *, method: str, keep: Callable[[], None]) -> None:
        self._connection = connection
        self._method = method
        self._keep = keep

    def answer(self, *, silence: float, patience: Patience) -> Exchange:
        """Wait for the header. Raises what `patience` raises, and whatever http.client raises."""
        try:
            response = respond(self._connection.sock, patience=patience, silence=silence, method=self._method)
        except BaseException:
            self.close()
            raise
        return Exchange(self._connection, response, keep=self._keep)

    def close(self) -> None:
        """Close the connection: nobody wants the answer."""
        self._connection.close()


class Exchange:
    """A request that was answered; the body is in `response`, and `close` must follow."""

    def __init__(self, connection: HTTPConnection, response: Response, *, keep: Callable[[], None]) -> None:
        self._connection = connection
        self.response = response
        self._keep = keep

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else close it."""
        if self.response.is_finished() and not self.response.will_close:
            self._keep()
        else:
            self.response.close()
            self._connection.close()


class Connections:
    """Those that are free, by where they lead. `tls` gives the context for all that are secure."""

    def __init__(self, *, tls: Callable[[], ssl.SSLContext]) -> None:
        self._tls = tls
        self._free: dict[Way, list[HTTPConnection]] = {}
        self._lock = Lock()

    def send(
        self,
        url: str,
        *,
        fields: Mapping[str, str],
        proxy: str | None,
        connect: float,
        silence: float,
        patience: Patience,
        method: str = "GET",
        body: bytes = b"",
    ) -> Sent:
        """Ask for `url` with `fields`; a `body` has its length among them.

        Raises PolicyError for what cannot be asked for, what `patience` raises, and whatever http.client raises.
        """
        at, target = parse(url)
        data = head(method, at, target, fields=fields, proxy=None if at.secure else proxy) + body
        way = Way(at.secure, at.host, at.port, proxy)
        connection = self._take(way) or self._made(way)
        try:
            if connection.sock is None:
                connection.timeout = connect
                connection.response_class = partial(proxy_response, patience=patience, silence=silence)  # type: ignore[assignment]  # whatever makes one will do
                _connect(connection)
                if isinstance(connection.sock, ssl.SSLSocket):
                    # Else whoever cuts the line would have ended a body that has no declared end (RFC 8446 6.1).
                    connection.sock.suppress_ragged_eofs = False
                patience.check()
            connection.sock.sendall(data)
        except BaseException:
            connection.close()
            raise
        return Sent(connection, method=method, keep=partial(self._keep, way, connection))

    def lead_to(self, url: str, *, proxy: str | None) -> bool:
        """Whether one that led where `url` leads has served a request to its end. Raises PolicyError."""
        at = parse(url)[0]
        return Way(at.secure, at.host, at.port, proxy) in self._free

    def close(self) -> None:
        """Close those that are free."""
        with self._lock:
            for connections in self._free.values():
                for connection in connections:
                    connection.close()
            self._free.clear()

    def _take(self, way: Way) -> HTTPConnection | None:
        """The connection to `way` that was used last, unless its other end has closed it."""
        while True:
            with self._lock:
                connections = self._free.get(way)
                if not connections:
                    return None
                connection = connections.pop()
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()

    def _keep(self, way: Way, connection: HTTPConnection) -> None:
        with self._lock:
            self._free.setdefault(way, []).append(connection)

    def _made(self, way: Way) -> HTTPConnection:
        """A new one, not connected yet."""
        host = way.host.rstrip(".") if way.secure else way.host  # no certificate has the root's dot
        if way.proxy is None:
            if way.secure:
                return HTTPSConnection(host, way.port, context=self._tls())
            return HTTPConnection(host, way.port)
        proxy = origin(way.proxy)
        if way.secure:
            return _tunnel(host, way.port, proxy=proxy, context=self._tls())
        if proxy.secure:
            return HTTPSConnection(proxy.host, proxy.port, context=self._tls())
        return HTTPConnection(proxy.host, proxy.port)


def _tunnel(host: str, port: int, *, proxy: Origin, context: ssl.SSLContext) -> HTTPConnection:
    """A secure connection that will lead through `proxy`."""
    fields = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    if not proxy.secure:
        single = _Tunnelled(proxy.host, proxy.port, context=context)
        single.set_tunnel(host, port, headers=fields)
        return single
    # TLS inside TLS, which ssl's sockets cannot do.
    from pxe_fetch.transport.lean import lean

    lean()
    from urllib3.connection import HTTPSConnection as DoubleConnection
    from urllib3.connection import ProxyConfig
    from urllib3.util import parse_url

    config = ProxyConfig(context, use_forwarding_for_https=False, assert_hostname=None, assert_fingerprint=None)
    at = parse_url(f"https://{proxy.place}")
    double = DoubleConnection(proxy.host, proxy.port, proxy=at, proxy_config=config, ssl_context=context)
    double.set_tunnel(host, port, headers=fields, scheme="https")
    return double


class _Tunnelled(HTTPSConnection):
    """http.client's, which up to 3.11.8 asks a proxy for an address of IPv6 without its brackets."""

    def _tunnel(self) -> None:
        host: str = self._tunnel_host  # type: ignore[has-type]
        self._tunnel_host = f"[{host}]" if ":" in host else host
        try:
            super()._tunnel()  # type: ignore[misc]
        finally:
            self._tunnel_host = host


def _connect(connection: HTTPConnection) -> None:
    try:
        connection.connect()
    except TimeoutError as error:
        raise ConnectTimeoutError from error
