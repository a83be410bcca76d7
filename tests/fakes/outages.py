"""A server that goes down and up again and again while a file is on its way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from fakes.content import Content
from fakes.exchange import Exchange
from fakes.faults import FOREVER, Serve
from fakes.server import Server

_WHILE = 0.003  # seconds that the server is down
_AT_MOST = 0.2  # seconds between two outages, should nobody ask meanwhile


@dataclass(frozen=True, kw_only=True)
class Outages(Serve):
    """While there is another outage to come, each answer has up to `share` of the file, and then waits for it."""

    number: int
    share: float
    been: list[int] = field(default_factory=list)
    _waiting: threading.Event = field(default_factory=threading.Event)

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        if len(self.been) >= self.number:
            super()._send(exchange, content, start, end)
            return
        exchange.send_body(content.read(start, min(end, start + content.offset(self.share))), at=start)
        exchange.drained()
        self._waiting.set()
        exchange.wait(FOREVER)

    @contextlib.contextmanager
    def befall(self, server: Server) -> Iterator[None]:
        """While this lasts, `server` goes down and up so many times, each once a piece has been sent."""
        over = threading.Event()

        def work() -> None:
            for index in range(self.number):
                self._waiting.wait(_AT_MOST)
                self._waiting.clear()
                if over.is_set():
                    return
                server.down()
                over.wait(_WHILE)
                self.been.append(index)
                server.up()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            self._waiting.set()
            thread.join()
