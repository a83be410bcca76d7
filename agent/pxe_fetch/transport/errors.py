"""What an exception of the network really was, in words without secrets, and whether asking again may help."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus

from urllib3.exceptions import LocationValueError

from pxe_fetch.deadline import Clock
from pxe_fetch.errors import FetchError, NetworkError, NotFoundError, PolicyError, RefusedError, TrustError
from pxe_fetch.transport.headers import retry_after
from pxe_fetch.transport.sockets import translate_os_error
from pxe_fetch.transport.watcher import Exchange

_NOT_YET = frozenset({9, 11})  # X509_V_ERR_* of OpenSSL that a wrong clock brings about, of certificates and CRLs
_EXPIRED = frozenset({10, 12})
# What a server says that does not accept our certificate, or that speaks nothing newer than TLS 1.1.
_CLIENT_REFUSED = re.compile(
    "CERTIFICATE_REQUIRED|ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|NO_CERTIFICATE|UNKNOWN_CA|CERTIFICATE"
    "|DECRYPT_ERROR|ACCESS_DENIED)"
)
_TOO_OLD = re.compile("UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW")
_CLIENT_KEYS = "tls.client_cert, tls.client_key"
# nginx (ngx_http_special_response.c) and Apache (ssl_engine_kernel.c) say it in the text of a 400 or 403.
_CERTIFICATE_WANTED = re.compile(rb"SSL certificate|Post-Handshake Authentication")
_TLS_WANTED = re.compile(rb"plain HTTP request was sent to HTTPS port|speaking plain HTTP to an SSL-enabled server")
# Beside 5xx: the same request may succeed later. 412 and 416 are no answers to a request without conditions.
_AGAIN = frozenset({408, 409, 412, 416, 421, 423, 424, 425, 429})
_OF_PROXIES = frozenset({502, 503, 504})
_INVALID = 600  # statuses end before (RFC 9110, 15)

Field = Callable[[str], str | None]  # gives a header field of an answer


def refusal(status: int, field: Field, exchange: Exchange, *, text: bytes = b"", is_tunnel: bool = False) -> FetchError:
    """What a `status` that brings no bytes means, `text` being its body. With `is_tunnel` it answers a CONNECT."""
    proxy = exchange.proxy
    if proxy and status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        wants = "does not accept the user and password of" if proxy.userinfo else "wants a user and password: set"
        return RefusedError(f"the proxy {proxy.host_and_port} {wants} proxy.credential (407)", status=status)
    said = f"the server answered {status}"
    if proxy and is_tunnel:
        said = f"the proxy {proxy.host_and_port} did not connect to {exchange.url.host_and_port}: it answered {status}"
    elif proxy and exchange.is_forwarded and status in _OF_PROXIES:
        said = f"the proxy {proxy.host_and_port}, or a server behind it, answered {status}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _AGAIN:
        wait = retry_after(field("Retry-After"), date=field("Date"))
        odd = ", which is no status of HTTP" if status >= _INVALID else ""
        return NetworkError(said + odd, status=status, retry_after=wait)
    if status == HTTPStatus.NOT_FOUND and not is_tunnel:
        return NotFoundError(said, status=status)
    if status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.NOT_FOUND:
        return NetworkError(said if is_tunnel else f"{said}, which has no file in it", status=status)
    if _CERTIFICATE_WANTED.search(text):
        said = f"{said}: it wants a client certificate that it trusts ({_CLIENT_KEYS})"
    elif _TLS_WANTED.search(text):
        said = f"{said}: it wants https"
    return RefusedError(said, status=status)


def translate_error(error: Exception, exchange: Exchange) -> FetchError:  # noqa: PLR0911  a table of causes
    """The FetchError for whatever was raised in `exchange`, or for why the watcher ended it."""
    cause = _cause(exchange.reason or error)
    host, proxy = exchange.url.host_and_port, exchange.proxy.host_and_port if exchange.proxy else None
    peer = f"{host} (through the proxy {proxy})" if proxy else host
    match cause:
        case FetchError():
            return cause
        case ssl.SSLCertVerificationError():
            return _distrust(cause, host=peer, clock=exchange.deadline.clock)
        case ssl.SSLEOFError():
            return NetworkError(f"{peer} broke the connection")
        case ssl.SSLError():
            return _tls(cause, host=peer)
        case http.client.RemoteDisconnected():
            return NetworkError(f"{peer} closed the connection without an answer")
        case http.client.IncompleteRead():
            how = f"{cause.expected} bytes early" if cause.expected else "early, or has a chunk without a valid size"
            return NetworkError(f"the body ended {how}")
        case http.client.InvalidURL() | UnicodeError() | LocationValueError():
            return PolicyError("the URL, or its proxy's, is not valid")
        case http.client.HTTPException():
            # Those derived from it may quote the server.
            what = cause if type(cause) is http.client.HTTPException else "a line that is too long"
            return NetworkError(f"{peer} sent what is not HTTP: {what}")
        case OSError():
            return translate_os_error(cause, host=host, proxy=proxy, timeouts=exchange.timeouts)
    return NetworkError(f"talking to {peer} failed ({type(cause).__name__})")


def _cause(error: BaseException) -> BaseException:
    """The innermost exception: requests and urllib3 wrap what happened several times, each in a way of its own."""
    while inner := error.__cause__ or next((each for each in error.args if isinstance(each, BaseException)), None):
        error = inner
    return error


def _distrust(error: ssl.SSLCertVerificationError, *, host: str, clock: Clock) -> TrustError:
    reason = error.verify_message or "certificate verify failed"
    if error.verify_code in _NOT_YET | _EXPIRED and not clock.synchronised():
        shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return TrustError(
            f"the certificate of {host} is not trusted while the clock is not set (it says {shown}): {reason}",
            transient=True,
            # A machine without a battery begins in the past, and no attempt succeeds before it is told the time.
            is_counted=error.verify_code not in _NOT_YET,
        )
    return TrustError(f"the certificate of {host} is not trusted: {reason}")


def _tls(error: ssl.SSLError, *, host: str) -> FetchError:
    reason = error.reason or ""
    words = reason.replace("_", " ").lower() or "the connection ended"
    if _CLIENT_REFUSED.search(reason):
        return RefusedError(f"{host} wants a client certificate that it trusts ({_CLIENT_KEYS}): {words}")
    if (
        "ALERT_HANDSHAKE_FAILURE" in reason
    ):  # of TLS 1.2, which has no alert of its own for a certificate that is missing
        needs = f"it wants a client certificate ({_CLIENT_KEYS}), or has no cipher in common with this node"
        return RefusedError(f"{host} refused the TLS handshake: {needs}")
    if _TOO_OLD.search(reason):
        return TrustError(f"{host} speaks no TLS 1.2 or newer: {words}")
    return NetworkError(f"TLS with {host} failed: {words}")
