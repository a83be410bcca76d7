"""Connections with TLS, to a server or to a proxy: http.client's, and one of urllib3's that ssl cannot make."""

from __future__ import annotations

import ssl
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

from pxe_fetch.deadline import Deadline
from pxe_fetch.transport.direct import ConnectTimeoutError
from pxe_fetch.transport.origin import Origin
from pxe_fetch.transport.patient import proxy_response


class Secure:
    """One of http.client's, or the like, as transport.direct.Connection."""

    def __init__(self, made: HTTPConnection) -> None:
        self._made = made
        self.sock: Any = None

    def connect(self, seconds: float, *, silence: float, deadline: Deadline) -> None:
        made = self._made
        made.timeout = seconds
        made.response_class = partial(proxy_response, deadline=deadline, silence=silence)  # type: ignore[assignment]  # whatever makes one will do
        try:
            made.connect()
        except TimeoutError as error:
            raise ConnectTimeoutError from error
        self.sock = made.sock
        if isinstance(made.sock, ssl.SSLSocket):
            # Else whoever cuts the line would have ended a body that has no declared end (RFC 8446 6.1).
            self.sock.suppress_ragged_eofs = False

    def close(self) -> None:
        self._made.close()
        self.sock = None


def connection(host: str, port: int, *, secure: bool, proxy: Origin | None, context: ssl.SSLContext) -> Secure:
    """One to `host`, with TLS if `secure`, by way of `proxy` if given; not connected yet."""
    if proxy is None:
        return Secure(HTTPSConnection(host, port, context=context))
    if secure:
        return Secure(_tunnel(host, port, proxy=proxy, context=context))
    return Secure(HTTPSConnection(proxy.host, proxy.port, context=context))


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
