"""The HTTPAdapter by which a run asks, and what it is answered.

With none of requests' sessions above it nothing comes from the environment, and no cookie is kept. What is done for
each request is little: with thousands of small files it is what they cost.
"""

from __future__ import annotations

import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from math import inf
from pathlib import Path
from queue import Empty
from typing import Any, cast

import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter

from pxe_fetch import __version__, regular_file
from pxe_fetch.contract.model import Proxy, Tls
from pxe_fetch.contract.paths import CA_BUNDLES
from pxe_fetch.contract.url import Origin, Url
from pxe_fetch.errors import FetchError, NetworkError, PolicyError, RefusedError, SilentError, TrustError
from pxe_fetch.transport import Body, Request, parse_url
from pxe_fetch.transport.connection import CURRENT, POOLS, Response
from pxe_fetch.transport.exchange import OF_PROXIES, Exchange, Watcher, proxy_authorization, refusal, translate_error
from pxe_fetch.transport.sockets import distrust

_KEPT = 256  # servers whose connections are kept, and connections to one of them: more than are ever used at once
_DRAINED = 16 * 1024  # bytes of an answer's text that are read, to keep the connection
_DRAIN = 0.25  # seconds that this may take
_BRIEFLY = 1.0  # seconds of idleness after which no server that really keeps connections closes one
_LARGEST_PEM = 16 * 1024 * 1024  # bytes of a CA bundle, certificate or key
_LEFT_OUT = 60.0  # seconds for which servers are asked without a proxy that fails
_OF_FIREWALLS = frozenset({401, 403, 404, 451})  # what one says in the place of a server that is behind a proxy
_CUTS = 3  # how often one may before its connections are no longer kept
_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: ?([\x21-\x7e\x80-\xff][^\r\n\0]*)?", re.ASCII)  # RFC 9110, 5.1, 5.5
_DEFAULTS = ("User-Agent", f"pxe-fetch/{__version__}"), ("Accept", "*/*")  # a configuration may give others
_FIXED = ("Accept-Encoding", "identity"), ("Connection", "keep-alive")  # the digest is of the file's bytes

urllib3.disable_warnings(urllib3.exceptions.SystemTimeWarning)  # a node that has just booted may not know the time


class Session(HTTPAdapter):
    """Asks, and keeps the connections for the next time. Safe to use from several threads."""

    def __init__(self, *, tls: Tls, proxy: Proxy, warn: Callable[[str], None]) -> None:
        """`warn` is told in a sentence that a proxy is left out."""
        self._tls, self._proxy, self._warn = tls, proxy, warn
        # When to try a proxy again that fails, on time.monotonic(): for one server, or for all of them (None).
        self._left_out: dict[tuple[str, Origin | None], float] = {}
        self._pools: dict[tuple[object, ...], urllib3.HTTPConnectionPool] = {}  # as PoolManager finds them, but quickly
        self._cut: Counter[tuple[object, ...]] = Counter()  # kept connections that a place closed soon, unannounced
        self._watcher = Watcher()
        super().__init__(pool_connections=_KEPT, pool_maxsize=_KEPT, max_retries=urllib3.Retry(total=False))
        self.poolmanager.pool_classes_by_scheme = POOLS

    def ask(self, url: Url, request: Request, *, fields: dict[str, str], body: bytes | None = None) -> Answer:
        """What answers a GET, or a POST of `body`, to where `request` has led, its own body still unread.

        Raises as Transport.open does.
        """
        request.deadline.check()
        chosen, prepared = self._proxy.of(url), _prepare(url, fields=fields, body=body)
        proxy = parse_url(chosen) if chosen else None
        exchange = Exchange(url=url, proxy=proxy, timeouts=request.timeouts, deadline=request.deadline)
        if proxy is None or self._proxy.fallback == "none":
            return self._ask(prepared, exchange)
        return self._ask_or_go_without(prepared, exchange, proxy=proxy.host_and_port)

    def _ask_or_go_without(self, request: PreparedRequest, exchange: Exchange, *, proxy: str) -> Answer:
        """As `ask` by a `proxy`; the server is asked directly if that, or what is behind it, fails.

        Whose failure a 502, 503 or 504 is, no field of the answer says reliably: what the server says directly does. A
        proxy whose server then answers is left out for a while, for this server: it cannot reach it, or did not pass
        the answer on. It is left out for all servers if it accepts no connection. Where servers are reached by the
        proxy alone, a firewall may refuse the direct request: that is no answer of the server, and is tried again.
        """
        failure: FetchError | None = None
        now, by_server, whole = time.monotonic(), (proxy, exchange.url.origin), (proxy, None)
        left_out = [key for key in (by_server, whole) if key in self._left_out]
        if all(now >= self._left_out.get(key, 0.0) for key in left_out):
            for key in left_out:  # this request finds out whether it works again; the others do without it meanwhile
                self._left_out[key] = now + _LEFT_OUT
            try:
                answer = self._ask(request, exchange)
                if not exchange.is_forwarded or answer.status not in OF_PROXIES:
                    self._leave_in(by_server, whole)
                    return answer
                answer.dismiss()
                failure = refusal(answer.status, answer.field, exchange)
            except NetworkError as error:
                if exchange.is_answered and error.status not in OF_PROXIES:
                    raise
                failure = error
        is_reached = exchange.is_answered or isinstance(failure, SilentError)
        if is_reached:
            self._leave_in(whole)
        try:
            answer = self._ask_directly(request, exchange, failure=failure)
        except NetworkError:
            self._leave_in(by_server)
            raise
        if failure and answer.status not in OF_PROXIES:
            self._left_out[by_server if is_reached else whole] = time.monotonic() + _LEFT_OUT
            which = f"{exchange.url.host_and_port} is" if is_reached else "servers are"
            self._warn(f"{failure}: {which} asked directly; the proxy is tried again in {_LEFT_OUT:.0f} s")
        return answer

    def _ask_directly(self, request: PreparedRequest, exchange: Exchange, *, failure: FetchError | None) -> Answer:
        """As `ask` without the proxy of `exchange`, which has failed: with `failure`, or before (None)."""
        direct = Exchange(url=exchange.url, proxy=None, timeouts=exchange.timeouts, deadline=exchange.deadline)
        before = f"; before that, {failure}" if failure else ""
        try:
            answer = self._ask(request, direct)
        except NetworkError as error:
            error.args = (f"{error}{before}",)
            raise
        except (TrustError, RefusedError) as error:
            raise NetworkError(f"asked without the proxy: {error}{before}", status=error.status) from error
        # The challenge of a registry, which leads to a login, is its own.
        if answer.status in _OF_FIREWALLS and not answer.field("WWW-Authenticate"):
            answer.dismiss()
            said = f"asked without the proxy, the server, or a firewall, answered {answer.status}"
            raise NetworkError(f"{said}{before}", status=answer.status)
        return answer

    def _leave_in(self, *keys: tuple[str, Origin | None]) -> None:
        """Ask by the proxy again."""
        for key in keys:
            self._left_out.pop(key, None)

    def _ask(self, request: PreparedRequest, exchange: Exchange) -> Answer:
        exchange.is_kept = self._cut[exchange.place] < _CUTS
        CURRENT.set(exchange)
        self._watcher.exchanges.add(exchange)
        try:
            raw = self._send(request, exchange)
        except BaseException as error:
            self._watcher.end(exchange)
            peer = exchange.proxy or exchange.url
            if not exchange.is_answered:
                distrust(peer.host, peer.port)
            if isinstance(error, FetchError) or not isinstance(error, Exception):
                raise
            raise translate_error(error, exchange) from error
        return Answer(raw, exchange, watcher=self._watcher)

    def close(self) -> None:
        self._watcher.close()
        super().close()

    def _send(self, request: PreparedRequest, exchange: Exchange) -> urllib3.HTTPResponse:
        """Send `request`; a second time, if the first took a kept connection that had died meanwhile."""
        try:
            return cast("urllib3.HTTPResponse", self.send(request, stream=True))
        except Exception as error:
            is_ours = isinstance(error, FetchError) or isinstance(exchange.reason, FetchError)
            if is_ours or exchange.is_answered or exchange.idle is None:
                raise
        if exchange.idle < _BRIEFLY:
            self._cut[exchange.place] += 1
        pool: Any = self.get_connection_with_tls_context(request, True)
        with suppress(Empty):  # the others that are kept have most likely died as well
            while True:
                if connection := pool.pool.get(block=False):
                    connection.close()
        exchange.let_go()
        exchange.is_fresh, exchange.reason = True, None
        return cast("urllib3.HTTPResponse", self.send(request, stream=True))

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401  as requests has it
        context = self._context if proxy.lower().startswith("https:") else None
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=context, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """What `proxy`, and nobody else, is sent with each request that it answers, and with CONNECT."""
        return proxy_authorization(parse_url(proxy))

    def get_connection_with_tls_context(self, *_args: object, **_kwargs: object) -> urllib3.HTTPConnectionPool:
        """The connections that the exchange of this thread may take."""
        exchange = CURRENT.get()
        if not (pool := self._pools.get(exchange.place)):
            url, proxy = exchange.url, exchange.proxy
            if len(self._pools) >= _KEPT:
                self._pools.clear()  # the managers close those that were not used for longest
            manager = self.proxy_manager_for(proxy.raw) if proxy else self.poolmanager
            host = f"[{url.host}]" if ":" in url.host else url.host  # else urllib3 stumbles over a zone
            tls = {"ssl_context": self._context} if url.scheme == "https" else {}
            pool = manager.connection_from_host(host, url.port, url.scheme, pool_kwargs=tls)
            self._pools[exchange.place] = pool
        return pool

    def request_url(self, *_args: object) -> str:
        """Of what is asked for, the exchange's target, no more than urllib3 needs: whether a proxy gets the request."""
        return "http://origin/" if CURRENT.get().is_forwarded else "/"

    def build_response(self, _request: object, raw: object) -> Any:  # noqa: ANN401
        """The response of urllib3: what requests makes of it, with a jar for cookies, nobody reads."""
        return raw

    def cert_verify(self, *_args: object) -> None:
        """Trust what the context trusts: requests would add certifi's authorities to it."""

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return _make_context(self._tls)  # for servers and proxies, when the first needs it


class Answer(Body):
    """A response, and as far as it is the file that was asked for also the Body of it."""

    def __init__(self, raw: urllib3.HTTPResponse, exchange: Exchange, *, watcher: Watcher) -> None:
        self._raw = raw
        self._response = cast("Response", raw._original_response)  # noqa: SLF001  urllib3's waits until it has all
        self._watcher = watcher
        self._received = 0
        self.exchange = exchange
        self.status = raw.status
        self.length = self._response.length  # bytes; None where chunks or the connection's end tell the body's
        self.field = self._response.field

    def readinto(self, view: memoryview) -> int:
        """As Body has it."""
        self.exchange.wait(self.exchange.timeouts.read)
        try:
            count = self._response.take(view)
        except FetchError:  # of a signal
            raise
        except Exception as error:
            raise translate_error(error, self.exchange) from error
        self.exchange.wait(inf)
        self._received += count
        if not count and self.exchange.reason:
            raise translate_error(self.exchange.reason, self.exchange)  # the end was the watcher's doing
        if not count and view and self._response.chunked and self.total is None:
            self.total = self.start + self._received  # the last chunk tells it
        return count

    def text(self) -> bytes:
        """The beginning of a text that is not the file, as far as it comes soon."""
        buffer, count = bytearray(_DRAINED), 0
        self.exchange.wait(_DRAIN)
        with suppress(Exception):  # whatever is wrong with it, nobody needs it
            while more := self._response.take(memoryview(buffer)[count:]):
                count += more
        return bytes(buffer[:count])

    def dismiss(self) -> None:
        """Throw a short text away and keep the connection; close it where that would take long."""
        self.text()
        self.close()

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else close it."""
        self._watcher.end(self.exchange)
        is_whole = self._response.is_finished() and not self._response.will_close and not self.exchange.reason
        if is_whole and self.exchange.is_kept:
            self._raw.release_conn()
        else:
            self._raw.close()
        self.exchange.reason = None


def _prepare(url: Url, *, fields: dict[str, str], body: bytes | None) -> PreparedRequest:
    """The request as requests has it, but for its target. Raises PolicyError."""
    request = PreparedRequest()
    request.method, request.body = "GET" if body is None else "POST", body
    length = () if body is None else (("Content-Length", str(len(body))),)
    every = (*_DEFAULTS, *fields.items(), *_FIXED, *length, ("Host", url.host_and_port))
    named = {one[0].lower(): one for one in every}  # the last one wins
    if fields and not all(_FIELD.fullmatch(f"{name}: {value}") for name, value in fields.items()):
        raise PolicyError("a header field for it is not valid")  # its text may hold a secret
    request.headers = dict(named.values())  # type: ignore[assignment]  # urllib3 takes any mapping
    request.url = f"{url.scheme}:"  # nothing secret: no layer below needs it
    return request


def _make_context(tls: Tls) -> ssl.SSLContext:
    """What every https connection of a run uses; made once, since reading a CA bundle takes tens of milliseconds.

    Raises TrustError where there is nothing to trust or the client certificate cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Up to 3.11.3 Python sets it, so that cutting the connection ends a body of no declared length (gh-95494).
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # only with OpenSSL 3
    bundle = tls.ca_file or next((path for path in CA_BUNDLES if Path(path).exists()), None)
    if bundle is None:
        raise TrustError("this node has no CA bundle; give tls.ca_file, or install ca-certificates in the image")
    used = f"the CA file {bundle}"
    try:
        regular_file.check(bundle, limit=_LARGEST_PEM)  # OpenSSL would wait for a FIFO's writer
        context.load_verify_locations(cafile=bundle)
        if tls.client_cert:
            used = f"the client certificate {tls.client_cert}"
            for file in filter(None, (tls.client_cert, tls.client_key)):
                regular_file.check(file, limit=_LARGEST_PEM)
            context.post_handshake_auth = True  # a server may want it for some of its files alone (RFC 8446, 4.2.6)
            # The password callback keeps OpenSSL from asking on the console for an encrypted key's.
            context.load_cert_chain(tls.client_cert, tls.client_key, password=lambda: b"")
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise TrustError(f"{used} cannot be used: {reason}") from error
    except OSError as error:
        raise TrustError(f"{used} cannot be used: {error.strerror or error}") from error
    return context
