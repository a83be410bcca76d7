"""What an exception of the network really was, in words without secrets, and whether asking again may help."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from urllib.parse import urlsplit

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.deadline import Clock
from pxe_fetch.errors import FetchError, NetworkError, PolicyError, RefusedError, TrustError
from pxe_fetch.transport.direct import ConnectTimeoutError
from pxe_fetch.transport.response import EarlyEndError
from pxe_fetch.transport.wire import NoAnswerError

# X509_V_ERR_* of OpenSSL that a wrong clock brings about: certificate or CRL not yet valid, or expired.
_ABOUT_TIME = frozenset({9, 10, 11, 12})
_NOT_YET = frozenset({9, 11})
# What a server says that does not accept our certificate, or that speaks nothing newer than TLS 1.1.
_CLIENT_REFUSED = re.compile(
    r"CERTIFICATE_REQUIRED|ALERT_BAD_CERTIFICATE|ALERT_UNKNOWN_CA|ALERT_CERTIFICATE|ACCESS_DENIED"
)
_TOO_OLD = re.compile(r"UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW")
_EARLY = "the body ended early"
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_TUNNEL_REFUSALS = frozenset({401, 403, 407})


def explain(  # noqa: PLR0911, PLR0912, C901  a table of causes
    error: Exception, *, host: str, proxy: str | None, timeouts: Timeouts, clock: Clock
) -> FetchError:
    """The FetchError for what http.client, ssl or a socket raised while talking to `host`, by way of `proxy` if given.

    Their own messages are not passed on where they may hold a URL.
    """
    asked = f"the proxy {proxy}" if proxy else host  # who is connected to
    peer = f"{host} (through {asked})" if proxy else host
    match error:
        case ssl.SSLCertVerificationError():
            return _distrust(error, host=peer, clock=clock)
        case ssl.SSLEOFError():
            return NetworkError(f"{peer} broke the connection")
        case ssl.SSLError():
            return _tls(error, host=peer)
        case socket.gaierror():
            return NetworkError(f"the name {proxy or host} cannot be resolved: {error.strerror}")
        case ConnectionRefusedError():
            return NetworkError(f"{asked} refused the connection")
        case NoAnswerError() | http.client.RemoteDisconnected():
            return NetworkError(f"{peer} closed the connection without an answer")
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return NetworkError(f"{peer} broke the connection")
        case EarlyEndError():
            return NetworkError(f"the body ended {error.missing} bytes early" if error.missing else _EARLY)
        case http.client.IncompleteRead():
            return NetworkError(f"the body ended {error.expected} bytes early" if error.expected else _EARLY)
        case http.client.InvalidURL() | UnicodeError():
            return PolicyError("the URL, or its proxy's, is not valid")
        case http.client.HTTPException():
            return NetworkError(f"{peer} sent what is not HTTP: {_words(error)}")
        case ConnectTimeoutError():
            return NetworkError(f"no connection to {peer} within {timeouts.connect:g} s")
        case TimeoutError():
            return NetworkError(f"{peer} was silent for {timeouts.read:g} s")
        case OSError() if tunnel := _TUNNEL.search(str(error)):
            return _proxy(int(tunnel[1]), asked=asked, host=host)
        case OSError() if error.strerror:
            return NetworkError(f"{peer} cannot be reached: {error.strerror}")
    return NetworkError(f"talking to {peer} failed ({type(error).__name__})")


def place(url: str) -> str:
    """Host and port of `url`, as messages show them."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the server"
    except ValueError:
        return "the server"


def _distrust(error: ssl.SSLCertVerificationError, *, host: str, clock: Clock) -> TrustError:
    reason = error.verify_message or "certificate verify failed"
    if error.verify_code in _ABOUT_TIME and not clock.synchronised():
        shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return TrustError(
            f"the certificate of {host} is not trusted while the clock is not set (it says {shown}): {reason}",
            transient=True,
            # A machine without a battery begins in the past, and no attempt will do before it is told the time.
            is_counted=error.verify_code not in _NOT_YET,
        )
    return TrustError(f"the certificate of {host} is not trusted: {reason}")


def _tls(error: ssl.SSLError, *, host: str) -> FetchError:
    reason = error.reason or ""
    words = reason.replace("_", " ").lower() or "the connection ended"
    if _CLIENT_REFUSED.search(reason):
        return RefusedError(f"{host} refused our certificate: {words}")
    if _TOO_OLD.search(reason):
        return TrustError(f"{host} speaks no TLS 1.2 or newer: {words}")
    return NetworkError(f"TLS with {host} failed: {words}")


def _proxy(status: int, *, asked: str, host: str) -> FetchError:
    if status in _TUNNEL_REFUSALS:
        return RefusedError(f"{asked} refuses a connection to {host} with {status}", status=status)
    return NetworkError(f"{asked} could not connect to {host}: {status}", status=status)


def _words(error: BaseException) -> str:
    return re.sub(r"(?<=.)(?=[A-Z])", " ", type(error).__name__).lower()
