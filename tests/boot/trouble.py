"""What a site does to a node that is to show how it copes: it errs once, and dies in the middle."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from fakes.content import Content
from fakes.exchange import Exchange, Fault
from fakes.faults import Serve
from fakes.ganesha import Ganesha
from fakes.nginx import Nginx

DOWN = 3.0  # seconds that a killed server stays away
LOOK = 0.05  # seconds between two looks at what was sent


@dataclass(frozen=True, kw_only=True)
class WrongOnce(Serve):
    """One byte is wrong in the first answer that has it; `told` is the path that gave it. Shared by mirrors."""

    byte: int = 0
    told: list[str] = field(default_factory=list)

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        if start <= self.byte < end and not self.told:
            self.told.append(exchange.asked.path)
            body = bytearray(content.read(0, content.size))
            body[self.byte] ^= 0xFF
            content = Content(bytes(body))
        super()._send(exchange, content, start, end)


@dataclass(frozen=True, kw_only=True)
class Wakes:
    """Who asks has another server started, if it does not run, before there is an answer."""

    server: Ganesha
    then: Fault

    def answer(self, exchange: Exchange) -> None:
        if self.server.process is None:
            self.server.start()
        self.then.answer(exchange)


@contextlib.contextmanager
def killed_at(server: Ganesha, *, taken: int) -> Iterator[None]:
    """SIGKILL for `server`, once, when a client has taken `taken` bytes of it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            if max(server.sending(), default=0) >= taken:
                server.kill()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextlib.contextmanager
def killed_once(server: Nginx, *, path: str, after: int, taken: int) -> Iterator[list[int]]:
    """SIGKILL for `server` when the client has taken `taken` bytes of the request that follows `after` logged ones.

    It is started again a little later. Gives a list that then has how many bytes the client had taken at least.
    """
    over = threading.Event()
    killed: list[int] = []

    def watch() -> None:
        while not over.wait(LOOK):
            logged = [asked for asked in server.asked() if asked[3] == path]
            sent = max(server.sending(), default=0) if len(logged) == after else 0
            if sent >= taken:
                server.kill()
                killed.append(sent)
                time.sleep(DOWN)
                server.start()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()
