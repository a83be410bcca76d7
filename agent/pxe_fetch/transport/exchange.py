"""One request and its answer: the watcher that ends it in time, and what its failure means, in words without secrets.

The watcher is one thread that looks four times a second at every request under way, so that nobody else has to look at
a clock, and shuts down the socket of one that is over time. The read that waits for bytes then ends, and raises the
reason noted here. docs/decisions/0008 has the alternative.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import inf
from threading import Event, Lock, Thread
from urllib.parse import unquote

from urllib3.exceptions import LocationValueError

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.contract.registry import Login
from pxe_fetch.contract.url import Url
from pxe_fetch.deadline import Clock, Deadline
from pxe_fetch.errors import FetchError, NetworkError, NotFoundError, PolicyError, RefusedError, TrustError
from pxe_fetch.transport.sockets import LOOK, translate_os_error

_NOT_YET = frozenset({9, 11})  # X509_V_ERR_* of OpenSSL that a wrong clock brings about, of certificates and CRLs
_EXPIRED = frozenset({10, 12})
# What a server says that does not accept our certificate, or that speaks nothing newer than TLS 1.1.
_CLIENT_REFUSED = (
    "CERTIFICATE_REQUIRED|ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|NO_CERTIFICATE|UNKNOWN_CA|CERTIFICATE"
    "|DECRYPT_ERROR|ACCESS_DENIED)"
)
_TOO_OLD = "UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW"
_ALERTS = 3  # in a row of one mirror, until they are believed
_CLIENT_KEYS = "tls.client_cert, tls.client_key"
# nginx (ngx_http_special_response.c) and Apache (ssl_engine_kernel.c) say it in the text of a 400 or 403.
_CERTIFICATE_WANTED = rb"SSL certificate|Post-Handshake Authentication"
_TLS_WANTED = rb"plain HTTP request was sent to HTTPS port|speaking plain HTTP to an SSL-enabled server"
# Beside 5xx: the same request may succeed later. 412 and 416 are no answers to a request without conditions.
_AGAIN = frozenset({408, 409, 412, 416, 421, 423, 424, 425, 429})
_SCHEME = r"(?a:(?:^|,)\s*([A-Za-z0-9-]+)(?=\s|,|$))"  # of challenges (RFC 9110, 11.6.1)
OF_PROXIES = frozenset({502, 503, 504})  # what a proxy answers that has no answer to pass on (RFC 9110, 15.6)
_INVALID = 600  # statuses end before (RFC 9110, 15)

Field = Callable[[str], str | None]  # gives a header field of an answer


_SHUTDOWN = Lock()  # held while a connection is ended, so that it is not let go meanwhile, and serves another request


class Duplicate(socket.socket):
    """A second socket of a connection, closed with the last reference to it.

    The connection's own may be closed, and its number another's, at the moment of a shutdown.
    """

    def __del__(self) -> None:
        self.close()


@mutable_record
class Exchange:
    """One request and its answer: what its connection has to know, and what the watcher does."""

    url: Url
    proxy: Url | None
    timeouts: Timeouts
    deadline: Deadline
    is_fresh: bool = False  # no connection that was used before will do
    is_kept: bool = True  # its connection may serve another request
    idle: float | None = None  # seconds since the connection served another request; None: it had not
    is_answered: bool = False  # a byte of the answer has come
    reason: Exception | None = None  # why the watcher ended it
    duplicate: Duplicate | None = None  # of the connection that the watcher may end
    _until: float = inf  # on time.monotonic()
    _late: type[TimeoutError] = TimeoutError

    @property
    def place(self) -> tuple[str, str, int, Url | None]:
        """Where its connection leads; another exchange with the same place may take it."""
        return self.url.scheme, self.url.host, self.url.port, self.proxy

    @property
    def is_forwarded(self) -> bool:
        """Whether a proxy is sent the request itself; for https it only connects."""
        return self.proxy is not None and self.url.scheme == "http"

    @property
    def target(self) -> str:
        """What the request line has (RFC 9112, 3.2): the URL as written, which a signature may cover."""
        return self.url.request_url if self.is_forwarded else self.url.path_and_query

    def wait(self, seconds: float, *, late: type[TimeoutError] = TimeoutError) -> None:
        """From now on the peer has `seconds` to do its part, else it is `late`; `inf`: nothing is waited for."""
        self._until, self._late = time.monotonic() + seconds, late

    def let_go(self) -> None:
        """The connection may serve another request: the watcher leaves it alone."""
        with _SHUTDOWN:
            self.duplicate = None

    def look(self) -> None:
        """Shut the socket down if the time is over."""
        try:
            self.deadline.check()
            if time.monotonic() < self._until:
                return
            reason: Exception = self._late()
        except Exception as error:
            reason = error
        with _SHUTDOWN, suppress(OSError):  # the connection has ended already
            if self.duplicate and not self.reason:
                self.reason = reason
                self.duplicate.shutdown(socket.SHUT_RDWR)


class Watcher:
    """Looks at all `exchanges` that are under way, until `close`."""

    def __init__(self) -> None:
        self.exchanges: set[Exchange] = set()
        self._over = Event()
        Thread(target=self._run, name="watcher", daemon=True).start()

    def end(self, exchange: Exchange) -> None:
        """`exchange` is over."""
        self.exchanges.discard(exchange)
        exchange.let_go()

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK):
            for exchange in list(self.exchanges):
                exchange.look()


def basic(userinfo: str) -> str:
    """The credentials of a URL, `name:password`, as the value of a field (RFC 7617)."""
    name, _, password = userinfo.partition(":")
    return Login(user=unquote(name), password=unquote(password)).basic


def proxy_authorization(proxy: Url) -> dict[str, str]:
    """The field by which `proxy` is sent the user and password in its URL; empty without them."""
    return {} if proxy.userinfo is None else {"Proxy-Authorization": basic(proxy.userinfo)}


def refusal(status: int, field: Field, exchange: Exchange, *, text: bytes = b"", is_tunnel: bool = False) -> FetchError:
    """What a `status` that brings no bytes means, `text` being its body. With `is_tunnel` it answers a CONNECT."""
    proxy = exchange.proxy
    if proxy and status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        wants = "does not accept the user and password of" if proxy.userinfo else "wants a user and password: set"
        offered = re.findall(_SCHEME, field("Proxy-Authenticate") or "")
        if offered and "basic" not in map(str.lower, offered):
            wants = f"offers {', '.join(offered[:3])}, but not Basic authentication, which is all that can be done with"
        return RefusedError(f"the proxy {proxy.host_and_port} {wants} proxy.credential (407)", status=status)
    said = f"the server answered {status}"
    if proxy and is_tunnel:
        said = f"the proxy {proxy.host_and_port} did not connect to {exchange.url.host_and_port}: it answered {status}"
    elif proxy and exchange.is_forwarded and status in OF_PROXIES:
        said = f"the proxy {proxy.host_and_port}, or a server behind it, answered {status}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _AGAIN:
        wait = retry_after(field("Retry-After"), date=field("Date"))
        odd = ", which is not an HTTP status" if status >= _INVALID else ""
        return NetworkError(said + odd, status=status, retry_after=wait)
    if status == HTTPStatus.NOT_FOUND and not is_tunnel:
        return NotFoundError(said, status=status)
    if status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.NOT_FOUND:
        return NetworkError(said if is_tunnel else f"{said}, which has no file in it", status=status)
    if re.search(_CERTIFICATE_WANTED, text):
        said = f"{said}: it wants a client certificate that it trusts ({_CLIENT_KEYS})"
    elif re.search(_TLS_WANTED, text):
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
    if error.verify_code not in _NOT_YET | _EXPIRED or clock.synchronised():
        return TrustError(f"the certificate of {host} is not trusted: {reason}")
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    found = TrustError(
        f"the certificate of {host} is not trusted while the clock is not set (it says {shown}): {reason}"
    )
    # A machine without a battery begins in the past, and no attempt succeeds before it is told the time.
    found.limit, found.is_counted = inf, error.verify_code not in _NOT_YET
    return found


def _tls(error: ssl.SSLError, *, host: str) -> FetchError:
    """What a failed handshake means: not final at once, since anybody can have sent its alert (RFC 5246, 7.2)."""
    found = _read_alert(error, host=host)
    found.limit = max(found.limit, _ALERTS)
    return found


def _read_alert(error: ssl.SSLError, *, host: str) -> FetchError:
    reason = error.reason or ""
    words = reason.replace("_", " ").lower() or "the connection ended"
    if re.search(_CLIENT_REFUSED, reason):
        return RefusedError(f"{host} wants a client certificate that it trusts ({_CLIENT_KEYS}): {words}")
    if "ALERT_HANDSHAKE_FAILURE" in reason:  # TLS 1.2 has no alert of its own for a certificate that is missing
        needs = f"it wants a client certificate ({_CLIENT_KEYS}), or has no cipher in common with this node"
        return RefusedError(f"{host} refused the TLS handshake: {needs}")
    if re.search(_TOO_OLD, reason):
        return TrustError(f"{host} does not support TLS 1.2 or newer: {words}")
    return NetworkError(f"TLS with {host} failed: {words}")


def retry_after(value: str | None, *, date: str | None) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110 10.2.3); None where it is missing or means nothing.

    `date` is the same answer's Date field: a node that has just booted may not know the time, and the server's own
    clock is what it meant.
    """
    value = (value or "").strip(" \t\r\n")
    if re.fullmatch(r"\d+", value, re.ASCII):
        return float(value[:18])
    until, since = _moment(value), _moment(date or "")
    return None if until is None else max(0.0, until - (time.time() if since is None else since))


def _moment(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
