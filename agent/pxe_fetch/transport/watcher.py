"""One thread that ends the requests of a run that take too long, so that nobody else has to look at a clock.

It looks four times a second at every request under way, and shuts down the socket of one that is over time. The read
that waits for bytes then ends, and raises the reason noted here. docs/decisions/0008 has the alternative.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from threading import Event, Lock, Thread

from pxe_fetch.contract.model import Timeouts
from pxe_fetch.contract.url import Url
from pxe_fetch.deadline import Deadline
from pxe_fetch.transport.sockets import LOOK


class Duplicate:
    """A second descriptor of a connection's socket, closed with the last reference to it.

    The connection's own may be closed, and its number another's, at the moment of a shutdown.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)

    def shut_down(self) -> None:
        """End the connection, whatever TLS is above it."""
        sock = socket.socket(fileno=self._descriptor)
        with suppress(OSError):  # the peer has ended it already
            sock.shutdown(socket.SHUT_RDWR)
        sock.detach()

    def __del__(self) -> None:
        os.close(self._descriptor)


@dataclass(kw_only=True, slots=True, eq=False)
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
    _duplicate: Duplicate | None = None
    _until: float = inf  # on time.monotonic()
    _late: type[TimeoutError] = TimeoutError
    _lock: Lock = field(default_factory=Lock)

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

    def guard(self, duplicate: Duplicate | None) -> None:
        """Let the watcher shut down the connection that has this duplicate."""
        self._duplicate = duplicate

    def wait(self, seconds: float, *, late: type[TimeoutError] = TimeoutError) -> None:
        """From now on the peer has `seconds` to do its part, else it is `late`; `inf`: nothing is waited for."""
        self._until, self._late = time.monotonic() + seconds, late

    def let_go(self) -> None:
        """The connection may serve another request: the watcher leaves it alone."""
        with self._lock:
            self._duplicate = None

    def look(self) -> None:
        """Shut the socket down if the time is over."""
        try:
            self.deadline.check()
            if time.monotonic() < self._until:
                return
            reason: Exception = self._late()
        except Exception as error:
            reason = error
        with self._lock:
            if self._duplicate and not self.reason:
                self.reason = reason
                self._duplicate.shut_down()


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
