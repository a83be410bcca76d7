"""Connections to servers and proxies, kept alive per host and shared by the threads of a run.

Nothing is read from the environment, no cookie is kept, and no request is made twice. docs/decisions/0008 says why it
is http.client that stands below them.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import NamedTuple

from pxe_fetch.deadline import Deadline
from pxe_fetch.transport.direct import Connection, Direct
from pxe_fetch.transport.head import head
from pxe_fetch.transport.origin import origin, parse
from pxe_fetch.transport.response import Response, respond

TYPE_CHECKING = False  # ssl and http.client take 20 ms to import, which a run by plain http need not pay
if TYPE_CHECKING:
    import ssl


class Way(NamedTuple):
    """Where a connection leads: requests that have the same can share it."""

    secure: bool
    host: str
    port: int
    proxy: str | None


class Sent:
    """A request that is on its way; `answer` must follow, or `close`."""

    def __init__(self, connection: Connection, *, method: str, keep: Callable[[], None]) -> None:
        self._connection = connection
        self._method = method
        self._keep = keep

    def answer(self, *, silence: float, deadline: Deadline) -> Exchange:
        """Wait for the header. Raises what `deadline` raises, and whatever http.client raises."""
        try:
            response = respond(self._connection.sock, deadline=deadline, silence=silence, method=self._method)
        except BaseException:
            self.close()
            raise
        return Exchange(self._connection, response, keep=self._keep)

    def close(self) -> None:
        """Close the connection: nobody wants the answer."""
        self._connection.close()


class Exchange:
    """A request that was answered; the body is in `response`, and `close` must follow."""

    def __init__(self, connection: Connection, response: Response, *, keep: Callable[[], None]) -> None:
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
        self._free: dict[Way, list[Connection]] = {}
        self._lock = Lock()

    def send(
        self,
        url: str,
        *,
        fields: Mapping[str, str],
        proxy: str | None,
        connect: float,
        silence: float,
        deadline: Deadline,
        method: str = "GET",
        body: bytes = b"",
    ) -> Sent:
        """Ask for `url` with `fields`; a `body` has its length among them.

        Raises PolicyError for what cannot be asked for, what `deadline` raises, and whatever http.client raises.
        """
        at, target = parse(url)
        data = head(method, at, target, fields=fields, proxy=None if at.secure else proxy) + body
        way = Way(at.secure, at.host, at.port, proxy)
        connection = self._take(way) or self._made(way)
        try:
            if connection.sock is None:
                connection.connect(connect, silence=silence, deadline=deadline)
                deadline.check()
            connection.sock.sendall(data)
        except BaseException:
            connection.close()
            raise
        return Sent(connection, method=method, keep=partial(self._keep, way, connection))

    def lead_to(self, url: str, *, proxy: str | None) -> bool:
        """Whether one that led where `url` leads has served a request to its end. Raises PolicyError."""
        at = parse(url)[0]
        return Way(at.secure, at.host, at.port, proxy) in self._free

    def close(self) -> None:
        """Close those that are free."""
        with self._lock:
            for connections in self._free.values():
                for connection in connections:
                    connection.close()
            self._free.clear()

    def _take(self, way: Way) -> Connection | None:
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

    def _keep(self, way: Way, connection: Connection) -> None:
        with self._lock:
            self._free.setdefault(way, []).append(connection)

    def _made(self, way: Way) -> Connection:
        """A new one, not connected yet."""
        proxy = origin(way.proxy) if way.proxy else None
        if way.secure or (proxy and proxy.secure):
            from pxe_fetch.transport import secure

            host = way.host.rstrip(".") if way.secure else way.host  # no certificate has the root's dot
            return secure.connection(host, way.port, secure=way.secure, proxy=proxy, context=self._tls())
        return Direct(proxy.host, proxy.port) if proxy else Direct(way.host, way.port)
