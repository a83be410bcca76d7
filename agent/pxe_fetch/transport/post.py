"""Something told to a server by http or https: one POST at a time, over the connections that fetches use as well."""

from __future__ import annotations

from urllib.parse import urlsplit

from pxe_fetch import __version__
from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import FetchError, PolicyError
from pxe_fetch.transport.connections import Connections
from pxe_fetch.transport.origin import PORTS
from pxe_fetch.transport.proxies import proxy_for

TYPE_CHECKING = False  # what is only named in a signature need not be imported at boot
if TYPE_CHECKING:
    import ssl

_DRAINED = 16 * 1024  # bytes of an answer's text read and thrown away, to keep the connection


class Poster:
    """Keeps its connection for the next time. Safe to use from several threads."""

    def __init__(self, *, tls: Tls, proxy: Proxy) -> None:
        self._tls = tls
        self._proxy = proxy
        self._context: ssl.SSLContext | None = None
        self._connections = Connections(tls=self._secure)

    def post(self, url: str, body: bytes, *, kind: str, timeouts: Timeouts, deadline: Deadline) -> int:
        """The status that answers `body` of the media type `kind`; a redirect is not followed.

        Raises only FetchError: PolicyError for a URL that is none, NetworkError, TrustError, RefusedError (of a proxy,
        or of our certificate), DeadlineError and StoppedError of `deadline`.
        """
        try:
            return self._post(url, body, kind=kind, timeouts=timeouts, deadline=deadline)
        except FetchError:
            raise
        except Exception as error:
            from pxe_fetch.transport.causes import explain, place

            proxy = proxy_for(url, self._proxy)
            by = place(proxy) if proxy else None
            raise explain(error, host=place(url), proxy=by, timeouts=timeouts, clock=deadline.clock) from error

    def _post(self, url: str, body: bytes, *, kind: str, timeouts: Timeouts, deadline: Deadline) -> int:
        try:
            parts = urlsplit(url)
            is_url = parts.scheme.lower() in PORTS and parts.hostname and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:
            raise PolicyError("it is no URL of http or https")
        fields = {
            "User-Agent": f"pxe-fetch/{__version__}",
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Accept-Encoding": "identity",
        }
        sent = self._connections.send(
            url,
            method="POST",
            body=body,
            fields=fields,
            proxy=proxy_for(url, self._proxy),
            connect=max(0.001, min(timeouts.connect, deadline.left())),
            silence=timeouts.read,
            deadline=deadline,
        )
        exchange = sent.answer(silence=timeouts.read, deadline=deadline)
        try:
            view = memoryview(bytearray(_DRAINED))
            while view and (count := exchange.response.take(view)):
                view = view[count:]
            return exchange.response.status
        finally:
            exchange.close()

    def close(self) -> None:
        """Close the connection that is kept."""
        self._connections.close()

    def _secure(self) -> ssl.SSLContext:
        if self._context is None:
            from pxe_fetch.transport.tls import context

            self._context = context(self._tls)
        return self._context
