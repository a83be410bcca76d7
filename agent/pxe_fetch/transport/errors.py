"""What an exception of the network really was, in words without secrets, and whether asking again may help."""

from __future__ import annotations

import http.client
import re
import ssl
import time

from urllib3.exceptions import LocationValueError

from pxe_fetch.deadline import Clock
from pxe_fetch.errors import FetchError, NetworkError, PolicyError, RefusedError, TrustError
from pxe_fetch.transport.sockets import translate_os_error
from pxe_fetch.transport.watcher import Exchange

_NOT_YET = frozenset({9, 11})  # X509_V_ERR_* of OpenSSL that a wrong clock brings about, of certificates and CRLs
_EXPIRED = frozenset({10, 12})
# What a server says that does not accept our certificate, or that speaks nothing newer than TLS 1.1.
_CLIENT_REFUSED = re.compile(r"CERTIFICATE_REQUIRED|ALERT_(BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE)|ACCESS_DENIED")
_TOO_OLD = re.compile(r"UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_TUNNEL_REFUSALS = frozenset({401, 403, 407})


def translate_error(error: Exception, exchange: Exchange) -> FetchError:  # noqa: PLR0911, C901  a table of causes
    """The FetchError for whatever was raised in `exchange`, or for why the watcher ended it."""
    cause = _cause(exchange.reason or error)
    host, proxy = exchange.host, exchange.proxy
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
            return NetworkError(f"the body ended {f'{cause.expected} bytes ' if cause.expected else ''}early")
        case http.client.InvalidURL() | UnicodeError() | LocationValueError():
            return PolicyError("the URL, or its proxy's, is not valid")
        case http.client.HTTPException():
            # Those derived from it may quote the server.
            what = cause if type(cause) is http.client.HTTPException else type(cause).__name__
            return NetworkError(f"{peer} sent what is not HTTP: {what}")
        case OSError() if tunnel := _TUNNEL.search(str(cause)):
            if (status := int(tunnel[1])) in _TUNNEL_REFUSALS:
                return RefusedError(f"the proxy {proxy} refuses a connection to {host} with {status}", status=status)
            return NetworkError(f"the proxy {proxy} could not connect to {host}: {status}", status=status)
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
        return RefusedError(f"{host} wants a client certificate that it trusts (tls.client_cert): {words}")
    if _TOO_OLD.search(reason):
        return TrustError(f"{host} speaks no TLS 1.2 or newer: {words}")
    return NetworkError(f"TLS with {host} failed: {words}")
