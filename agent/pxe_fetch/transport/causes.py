"""What an exception of the network really was, in words without secrets, and whether asking again may help."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator

from pxe_fetch.clock import Clock
from pxe_fetch.contract.model import Timeouts
from pxe_fetch.errors import FetchError, NetworkError, PolicyError, RefusedError, TrustError
from pxe_fetch.transport.lean import lean

lean()

import requests  # noqa: E402  after it was made cheap

# X509_V_ERR_* of OpenSSL that a wrong clock brings about: certificate or CRL not yet valid, or expired.
_ABOUT_TIME = frozenset({9, 10, 11, 12})
# What a server says that does not accept our certificate, or that speaks nothing newer than TLS 1.1.
_CLIENT_REFUSED = re.compile(
    r"CERTIFICATE_REQUIRED|ALERT_BAD_CERTIFICATE|ALERT_UNKNOWN_CA|ALERT_CERTIFICATE|ACCESS_DENIED"
)
_TOO_OLD = re.compile(r"UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_TUNNEL_REFUSALS = frozenset({401, 403, 407})
_DEEPEST = 32  # links of a chain of exceptions that are looked at


def explain(error: Exception, *, host: str, timeouts: Timeouts, clock: Clock) -> FetchError:
    """The FetchError for what requests, http.client, ssl or a socket raised while talking to `host`.

    Their own messages are not passed on where they may hold a URL.
    """
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, FetchError):
            return link
    for link in chain:
        if known := _known(link, host=host, timeouts=timeouts, clock=clock):
            return known
    return NetworkError(f"talking to {host} failed ({type(chain[-1]).__name__})")


def _known(link: BaseException, *, host: str, timeouts: Timeouts, clock: Clock) -> FetchError | None:  # noqa: PLR0911, C901, PLR0912  a table of causes, one a line
    match link:
        case ssl.SSLCertVerificationError():
            return _distrust(link, host=host, clock=clock)
        case ssl.SSLError():
            return _tls(link, host=host)
        case socket.gaierror():
            return NetworkError(f"the name {host} cannot be resolved: {link.strerror}")
        case ConnectionRefusedError():
            return NetworkError(f"{host} refused the connection")
        case http.client.RemoteDisconnected():
            return NetworkError(f"{host} closed the connection without an answer")
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return NetworkError(f"{host} broke the connection")
        case http.client.IncompleteRead():
            missing = f" {link.expected} bytes early" if link.expected else " early"
            return NetworkError(f"the body ended{missing}")
        case http.client.HTTPException():
            return NetworkError(f"{host} sent what is not HTTP: {_words(link)}")
        case requests.exceptions.ConnectTimeout():
            return NetworkError(f"no connection to {host} within {timeouts.connect:g} s")
        case TimeoutError() | requests.exceptions.ReadTimeout():
            return NetworkError(f"{host} was silent for {timeouts.read:g} s")
        case OSError() if tunnel := _TUNNEL.search(str(link)):
            return _proxy(int(tunnel[1]), host=host)
        case requests.exceptions.InvalidURL():
            return PolicyError("the URL, or its proxy's, is not valid")
        case requests.exceptions.InvalidHeader():
            return NetworkError(f"{host} sent a header that contradicts itself")
        case OSError() if link.strerror:
            return NetworkError(f"{host} cannot be reached: {link.strerror}")
    return None


def _distrust(error: ssl.SSLCertVerificationError, *, host: str, clock: Clock) -> TrustError:
    reason = error.verify_message or "certificate verify failed"
    if error.verify_code in _ABOUT_TIME and not clock.synchronised():
        return TrustError(
            f"the certificate of {host} is not trusted while the clock is not set: {reason}", transient=True
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


def _proxy(status: int, *, host: str) -> FetchError:
    if status in _TUNNEL_REFUSALS:
        return RefusedError(f"the proxy refuses a connection to {host} with {status}", status=status)
    return NetworkError(f"the proxy could not connect to {host}: {status}", status=status)


def _words(error: BaseException) -> str:
    return re.sub(r"(?<=.)(?=[A-Z])", " ", type(error).__name__).lower()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside `error`, innermost first: what is raised around a cause says less than the cause."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting and len(found) < _DEEPEST:
        link = waiting.pop(0)
        if link in found:
            continue
        found.append(link)
        inner = [getattr(link, "reason", None), *link.args, link.__cause__, link.__context__]
        waiting += [item for item in inner if isinstance(item, BaseException)]
    return reversed(found)
