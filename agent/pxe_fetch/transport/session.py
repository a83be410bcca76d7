"""The HTTPAdapter by which a run asks, and what it is answered.

With none of requests' sessions above it nothing comes from the environment, and no cookie is kept.
"""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from functools import cached_property
from math import inf
from queue import Empty
from typing import Any, cast

import requests
import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from pxe_fetch import __version__
from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.contract.url import Url
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import FetchError, PolicyError
from pxe_fetch.transport import parse_url
from pxe_fetch.transport.connection import CURRENT, POOLS, Response
from pxe_fetch.transport.errors import translate_error
from pxe_fetch.transport.headers import basic
from pxe_fetch.transport.proxies import proxy_for
from pxe_fetch.transport.tls import make_context
from pxe_fetch.transport.watcher import Exchange, Watcher

_KEPT = 256  # servers whose connections are kept, and connections to one of them: more than are ever used at once
_DRAINED = 16 * 1024  # bytes of an answer's text read and thrown away, to keep the connection
_DRAIN = 0.25  # seconds that this may take
_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: ?([\x21-\x7e\x80-\xff][^\r\n\0]*)?", re.ASCII)  # RFC 9110, 5.1, 5.5
_DEFAULTS = {"User-Agent": f"pxe-fetch/{__version__}", "Accept": "*/*"}  # a configuration may give others
_FIXED = {"Accept-Encoding": "identity", "Connection": "keep-alive"}  # the digest is of the file's bytes

urllib3.disable_warnings(urllib3.exceptions.SystemTimeWarning)  # a node that has just booted may not know the time


class Session(HTTPAdapter):
    """Asks, and keeps the connections for the next time. Safe to use from several threads."""

    def __init__(self, *, tls: Tls, proxy: Proxy) -> None:
        self._tls, self._proxy = tls, proxy
        self._watcher = Watcher()
        super().__init__(pool_connections=_KEPT, pool_maxsize=_KEPT, max_retries=urllib3.Retry(total=False))

    def ask(
        self, url: Url, *, fields: dict[str, str], timeouts: Timeouts, deadline: Deadline, body: bytes | None = None
    ) -> Answer:
        """What answers a GET, or a POST of `body`, its own body still unread. Raises as Transport.open does."""
        deadline.check()
        proxy = proxy_for(url, self._proxy)
        exchange = Exchange(
            target=url.request_url if proxy and url.scheme == "http" else url.path_and_query,
            host=url.host_and_port,
            proxy=proxy.host_and_port if proxy else None,
            timeouts=timeouts,
            deadline=deadline,
        )
        request = _prepare(url, fields=fields, body=body)
        CURRENT.set(exchange)
        self._watcher.exchanges.add(exchange)
        try:
            raw = self._send(request, exchange, {url.scheme: proxy.raw} if proxy else {}).raw
        except BaseException as error:
            self._watcher.end(exchange)
            if isinstance(error, FetchError) or not isinstance(error, Exception):
                raise
            raise translate_error(error, exchange) from error
        return Answer(raw, exchange, watcher=self._watcher)

    def close(self) -> None:
        self._watcher.close()
        super().close()

    def _send(self, request: PreparedRequest, exchange: Exchange, proxies: dict[str, str]) -> requests.Response:
        """Send `request`; a second time, if the first took a kept connection that had died meanwhile."""
        timeout = (exchange.timeouts.connect, exchange.timeouts.read)
        try:
            return self.send(request, stream=True, timeout=timeout, proxies=proxies)
        except Exception as error:
            is_ours = isinstance(error, FetchError) or isinstance(exchange.reason, FetchError)
            if is_ours or exchange.is_answered or not exchange.is_reused:
                raise
        pool: Any = self.get_connection_with_tls_context(request, True, proxies=proxies)
        with suppress(Empty):  # the others that are kept have most likely died as well
            while True:
                if connection := pool.pool.get(block=False):
                    connection.close()
        exchange.let_go()
        exchange.is_fresh, exchange.reason = True, None
        return self.send(request, stream=True, timeout=timeout, proxies=proxies)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  as requests has it
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401
        context = self._context if proxy.lower().startswith("https:") else None
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=context, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """The proxy's own field: requests would encode a password in Latin-1."""
        userinfo = parse_url(proxy).userinfo
        return {} if userinfo is None else {"Proxy-Authorization": basic(userinfo)}

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        host, pool = super().build_connection_pool_key_attributes(*args, **kwargs)
        host["host"] = f"[{host['host']}]" if ":" in host["host"] else host["host"]  # else urllib3 stumbles over a zone
        return host, {**pool, "ssl_context": self._context} if host["scheme"] == "https" else pool

    def cert_verify(self, *_args: object) -> None:
        """Trust what the context trusts: requests would add certifi's authorities to it."""

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return make_context(self._tls)  # for servers and proxies, when the first needs it


class Answer:
    """A response, and as far as it is the file that was asked for also the Body of it."""

    start, remark, ranged = 0, "", True
    total: int | None = None
    validator: str | None = None

    def __init__(self, raw: urllib3.HTTPResponse, exchange: Exchange, *, watcher: Watcher) -> None:
        self._raw = raw
        self._response = cast("Response", raw._original_response)  # noqa: SLF001  urllib3's waits until it has all
        self._exchange = exchange
        self._watcher = watcher
        self.status = raw.status
        self.length = self._response.length  # bytes; None where chunks or the connection's end tell the body's
        self.proxy = None if exchange.target.startswith("/") else exchange.proxy  # that may have answered itself
        self.field = self._response.field

    def readinto(self, view: memoryview) -> int:
        """As Body has it."""
        self._exchange.wait(self._exchange.timeouts.read)
        try:
            count = self._response.take(view)
        except FetchError:  # of a signal
            raise
        except Exception as error:
            raise translate_error(error, self._exchange) from error
        self._exchange.wait(inf)
        if not count and self._exchange.reason:
            raise translate_error(self._exchange.reason, self._exchange)  # the end was the watcher's doing
        return count

    def dismiss(self) -> None:
        """Throw a short text away and keep the connection; close it where that would take long."""
        view = memoryview(bytearray(_DRAINED))
        self._exchange.wait(_DRAIN)
        with suppress(Exception):  # whatever is wrong with it, nobody wants it
            while view and (count := self._response.take(view)):
                view = view[count:]
        self.close()

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else close it."""
        self._watcher.end(self._exchange)
        if self._response.is_finished() and not self._response.will_close and not self._exchange.reason:
            self._raw.release_conn()
        else:
            self._raw.close()
        self._exchange.reason = None


def _prepare(url: Url, *, fields: dict[str, str], body: bytes | None) -> PreparedRequest:
    """The request as requests has it, but for its target. Raises PolicyError."""
    request = PreparedRequest()
    request.method, request.body = "GET" if body is None else "POST", body
    request.headers = CaseInsensitiveDict(_DEFAULTS)
    request.headers.update(fields | _FIXED)  # the last of a name wins, however it is spelt
    request.headers["Host"] = url.host_and_port
    if not all(_FIELD.fullmatch(f"{name}: {value}") for name, value in request.headers.items()):
        raise PolicyError("a header field for it is not valid")  # its text may hold a secret
    # Nothing secret, and nothing to be encoded anew: what is asked for is the exchange's target.
    request.url = f"{url.scheme}://{f'[{url.host}]' if ':' in url.host else url.host}:{url.port}/"
    return request
