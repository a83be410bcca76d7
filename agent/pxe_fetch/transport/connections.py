"""Connections by http.client to servers and proxies, kept alive per host and shared by the threads of a run.

Nothing is read from the environment, no cookie is kept, and no request is made twice. docs/decisions/0008 says why it
is http.client that stands here.
"""

from __future__ import annotations

import re
import select
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from threading import Lock
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pxe_fetch.clock import Patience
from pxe_fetch.errors import PolicyError
from pxe_fetch.transport.response import Response, proxy_response, respond

PORTS = {"http": 80, "https": 443}
# What may not stand in the path and query of a request as it is: RFC 3986, and a % that begins no octet.
_UNSENDABLE = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9!#$%&'()*+,/:;=?@\[\]~._-]+", re.ASCII)
_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: ?(\S[^\r\n\0]*)?", re.ASCII)  # RFC 9110 5.1, 5.5


class ConnectTimeoutError(TimeoutError):
    """There was no connection in the time given to making one."""


class Way(NamedTuple):
    """Where a connection leads: requests that have the same can share it."""

    secure: bool
    host: str
    port: int
    proxy: str | None


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

    def ask(
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
    ) -> Exchange:
        """Ask for `url` with `fields`; a `body` has its length among them.

        Raises PolicyError for what cannot be asked for, what `patience` raises, and whatever http.client raises.
        """
        parts = urlsplit(url)
        secure = parts.scheme.lower() == "https"
        way = Way(secure, *_place(parts), proxy)
        head = _head(parts, method=method, fields=fields, proxy=None if secure else proxy)
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
            connection.sock.sendall(head + body)
            response = respond(connection.sock, patience=patience, silence=silence, method=method)
        except BaseException:
            connection.close()
            raise
        return Exchange(connection, response, keep=lambda: self._keep(way, connection))

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
        proxy = urlsplit(way.proxy)
        if way.secure:
            return _tunnel(host, way.port, proxy=proxy, context=self._tls())
        host, port = _place(proxy)
        return (
            HTTPSConnection(host, port, context=self._tls()) if proxy.scheme == "https" else HTTPConnection(host, port)
        )


def _tunnel(host: str, port: int, *, proxy: SplitResult, context: ssl.SSLContext) -> HTTPConnection:
    """A secure connection that will lead through `proxy`."""
    place, fields = _place(proxy), _authorization("Proxy-Authorization", proxy)
    if proxy.scheme.lower() == "http":
        single = _Tunnelled(*place, context=context)
        single.set_tunnel(host, port, headers=fields)
        return single
    # TLS inside TLS, which ssl's sockets cannot do.
    from pxe_fetch.transport.lean import lean

    lean()
    from urllib3.connection import HTTPSConnection as DoubleConnection
    from urllib3.connection import ProxyConfig
    from urllib3.util import parse_url

    config = ProxyConfig(context, use_forwarding_for_https=False, assert_hostname=None, assert_fingerprint=None)
    at = parse_url(f"https://{proxy.netloc.rpartition('@')[2]}")
    double = DoubleConnection(*place, proxy=at, proxy_config=config, ssl_context=context)
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


def _place(parts: SplitResult) -> tuple[str, int]:
    """Host and port to connect to. Raises PolicyError where there is none."""
    if not parts.hostname or parts.scheme.lower() not in PORTS:
        raise PolicyError("the URL, or its proxy's, names no host")
    return parts.hostname, parts.port or PORTS[parts.scheme.lower()]


def _connect(connection: HTTPConnection) -> None:
    try:
        connection.connect()
    except TimeoutError as error:
        raise ConnectTimeoutError from error


def _head(parts: SplitResult, *, method: str, fields: Mapping[str, str], proxy: str | None) -> bytes:
    """The request; to a `proxy`, by plain http, with the whole URL (RFC 9112 3.2.2)."""
    place = parts.netloc.rpartition("@")[2]
    target = _sendable(parts.path or "/") + (f"?{_sendable(parts.query)}" if parts.query else "")
    lines = {"host": f"Host: {place}"}
    if proxy:
        target = f"{parts.scheme}://{place}{target}"
        fields = {**fields, **_authorization("Proxy-Authorization", urlsplit(proxy))}
    if parts.username is not None:
        fields = {**fields, **_authorization("Authorization", parts)}
    for name, value in fields.items():
        line = f"{name}: {value}"
        if not _FIELD.fullmatch(line):
            raise PolicyError("a header field for it is not valid")  # its text may hold a secret
        lines[name.lower()] = line  # the last of a name wins, however it is spelt
    try:
        return "\r\n".join([f"{method} {target} HTTP/1.1", *lines.values(), "", ""]).encode("latin-1")
    except UnicodeEncodeError as error:
        raise PolicyError("it cannot be asked for: its host or a header field is not Latin-1") from error


def _sendable(text: str) -> str:
    return _UNSENDABLE.sub(lambda match: quote(match[0], safe=""), text)


def _authorization(name: str, parts: SplitResult) -> dict[str, str]:
    """The Basic credentials in a URL (RFC 7617) as the field `name`; {} where it has none."""
    if parts.username is None:
        return {}
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {name: f"Basic {b64encode(secret).decode()}"}
