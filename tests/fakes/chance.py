"""Servers whose faults come by chance: latency, resets, flipped bits, lines that collapse, listeners that go away.

The chance is a seed's: what a server is like, and how far apart its faults are in bytes. In which order its threads
draw from it is not, so that a seed repeats the kind of a run and not each of its bytes.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fakes.content import Content
from fakes.exchange import Exchange
from fakes.faults import Serve, Status
from fakes.server import Script, Server

MiB = 1 << 20
PATH = "/m.bin"
_PIECE = 64 * 1024  # bytes sent at once
_CRAWL = 1024  # bytes a second of a line that has collapsed
_STEP = 0.1  # seconds between two pieces on it


@dataclass(frozen=True, kw_only=True)
class Faulty(Serve):
    """A proper answer, until chance has it otherwise."""

    chance: random.Random
    rate: float  # bytes a second of one stream
    latency: float  # seconds at most before an answer begins
    apart: float  # bytes of a body from one break to the next, on average
    flips_apart: float  # bytes from one flipped bit to the next, on average
    unavailable: float  # share of the requests that are told 503
    collapse: float  # seconds that a line which has collapsed stays so
    happened: list[str] = field(default_factory=list)

    def answer(self, exchange: Exchange) -> None:
        exchange.wait(self.chance.uniform(0, self.latency))
        if self.chance.random() < self.unavailable:
            self.happened.append("503")
            Status(503).answer(exchange)
        else:
            super().answer(exchange)

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        breaks = start + int(self.chance.expovariate(1 / self.apart))
        flips = start + int(self.chance.expovariate(1 / self.flips_apart))
        at = start
        while at < end:
            until = min(at + _PIECE, end, max(breaks, at + 1))
            data = bytearray(content.read(at, until))
            if at <= flips < until:
                data[flips - at] ^= 1 << self.chance.randrange(8)
                self.happened.append("flip")
            self._piece(exchange, bytes(data), at=at)
            exchange.wait(len(data) / self.rate)
            at = until
            if at >= breaks and at < end:
                at = self._break(exchange, content, at, end)
                breaks = at + int(self.chance.expovariate(1 / self.apart))
                if not exchange.keep:
                    return

    def _break(self, exchange: Exchange, content: Content, at: int, end: int) -> int:
        """The connection is reset or closed, or its line collapses for a while; where it goes on."""
        what = self.chance.choice(("reset", "cut", "collapse", "collapse"))
        self.happened.append(what)
        if what == "collapse":
            until = time.monotonic() + self.collapse
            while at < end and time.monotonic() < until:
                step = min(at + int(_CRAWL * _STEP), end)
                self._piece(exchange, content.read(at, step), at=at)
                exchange.wait(_STEP)
                at = step
            return at
        exchange.keep = False
        if what == "reset":
            exchange.reset()
        return at


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """The servers of one seed."""

    servers: Sequence[Server]
    faults: Sequence[Faulty]

    @property
    def urls(self) -> Sequence[str]:
        return [server.url(PATH) for server in self.servers]

    def sent(self) -> int:
        """Bytes of bodies that they have sent so far."""
        return sum(server.sent(PATH) for server in self.servers)

    def is_up(self) -> bool:
        """Whether one of them listens."""
        return any(server.is_up for server in self.servers)

    def happened(self) -> Sequence[str]:
        """Every fault so far."""
        return [each for fault in self.faults for each in fault.happened]


@contextlib.contextmanager
def mirrors(body: bytes, *, seed: int) -> Iterator[Mirrors]:
    """One to three servers of `body`, each with faults of its own, of which one at a time is away for a while.

    A line that has collapsed stays so for ever where there is another mirror, else for some seconds.
    """
    chance = random.Random(seed)
    number = chance.choice((1, 2, 2, 3, 3))
    faults = [
        Faulty(
            chance=random.Random(chance.random()),
            rate=chance.uniform(4, 40) * MiB,
            latency=chance.choice((0.0, 0.05, 0.3)),
            apart=chance.choice((1, 2, 4, 8)) * MiB,
            flips_apart=chance.choice((32, 64, 1 << 20)) * MiB,
            unavailable=chance.choice((0.0, 0.05, 0.2)),
            collapse=2.0 if number == 1 else 3600.0,
        )
        for _ in range(number)
    ]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server({PATH: Script(body=body, then=fault)})) for fault in faults]
        stack.enter_context(_going_away(servers, random.Random(chance.random()), happened=faults[0].happened))
        yield Mirrors(servers=servers, faults=faults)


@contextlib.contextmanager
def _going_away(servers: Sequence[Server], chance: random.Random, *, happened: list[str]) -> Iterator[None]:
    """While this lasts, one server after the other refuses connections for up to 1.5 s, and breaks those it has."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(chance.expovariate(1 / 2.0)):
            server = chance.choice(servers)
            happened.append("down")
            server.down()
            over.wait(chance.uniform(0.2, 1.5))
            server.up()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
