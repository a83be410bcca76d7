#!/usr/bin/env python3
"""How long a fleet takes that boots at once: a simulation of lines and caches, whose figures are in docs/fleet.md.

    python tests/fleet/simulate.py

prints the page's table. tests/fleet/test_simulation.py compares it with the page, and the model with real agents on
real lines. It is a model of what takes the time: slices that wait for a line. Caches that ask one server behave alike,
as do the nodes of a rack; so of each kind all but the last are simulated together, as a load on the line.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

import simpy

GiB, MiB = 1 << 30, 1 << 20
GBIT = 1_000_000_000
FILE = 4 * GiB  # the ISO and the artifacts
SLICE = 4 * MiB  # as nginx-cache has it by default
STREAMS = 4  # of a node: `parallel`
RACK, ZONE = 40, 50  # nodes in a rack, racks in a zone
HEADERS = 1514 / 1448  # bytes of Ethernet frames for those of a file, by IPv4 and TCP
POLL = 0.5  # seconds between two looks of a request that waits for another's slice (ngx_http_file_cache.c)
START = 0.1  # seconds until a node's first request
PATIENCE = 30.0  # seconds of silence after which a node leaves the last mirror of a tier: `timeouts.read`
LONG = 600.0  # seconds; more is shown in minutes

Process = Generator[simpy.Event, object, None]
Fetch = Callable[[int, int, int], Process]  # of a slice: its number, its bytes, how many this client has asked for


def seconds(size: float, *, rate: float) -> float:
    """What `size` bytes take on a line of `rate` bits a second."""
    return size * 8 * HEADERS / rate


@dataclass(kw_only=True)
class Server:
    """The origin, or a cache: what it has, and its line to those who ask it."""

    environment: simpy.Environment
    rate: float  # of its line, in bits a second
    parent: Server | None = None  # None: it is the origin
    sent: int = 0  # bytes
    longest_wait: float = 0.0  # seconds that somebody waited for a slice that was not here
    _line: simpy.PriorityResource = field(init=False)
    _slices: dict[int, simpy.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._line = simpy.PriorityResource(self.environment)

    def send(self, index: int, size: int, turn: int, *, to: int = 1) -> Process:
        """Send a slice to `to` clients, once it is here. Clients that have had fewer slices come first."""
        if self.parent:
            asked = self.environment.now
            if index not in self._slices:
                self._slices[index] = self.environment.process(self.parent.send(index, size, turn))
            if not self._slices[index].processed:
                yield self._slices[index]
                if to > 1:  # all but the first look again after a while
                    yield self.environment.timeout(POLL / 2)
            self.longest_wait = max(self.longest_wait, self.environment.now - asked)
        with self._line.request(priority=turn) as granted:
            yield granted
            yield self.environment.timeout(seconds(to * size, rate=self.rate))
        self.sent += to * size


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    seconds: float  # until the last node had all
    copies: float  # that the origin sent
    longest_wait: float  # seconds that a node waited for a slice


@dataclass(frozen=True, kw_only=True)
class Lines:
    """How many bits a second each one's line carries."""

    origin: int = 10 * GBIT
    cache: int = 10 * GBIT
    node: int = 10 * GBIT


def simulate(*, tiers: Sequence[int], nodes: int, size: int = FILE, lines: Lines | None = None) -> Outcome:
    """`nodes` that ask one server at once; `tiers`: how many caches ask one server, from the origin down."""
    lines = lines or Lines()
    environment = simpy.Environment()
    origin = nearest = Server(environment=environment, rate=lines.origin)
    for caches in tiers:
        if caches > 1:
            environment.process(_download(environment, size, _as_clients(nearest, number=caches - 1)))
        nearest = Server(environment=environment, rate=lines.cache, parent=nearest)
    all_nodes = _as_clients(nearest, number=nodes, line=lines.node)
    environment.run(until=environment.process(_download(environment, size, all_nodes)))
    finished = environment.now
    environment.run()
    return Outcome(seconds=finished, copies=origin.sent / size, longest_wait=nearest.longest_wait)


def _as_clients(server: Server, *, number: int, line: float | None = None) -> Fetch:
    """How `number` clients that are all alike ask `server`; each has a `line` of its own that counts, or None."""
    environment = server.environment
    own = simpy.Resource(environment)

    def fetch(index: int, size: int, turn: int) -> Process:
        yield environment.process(server.send(index, size, turn, to=number))
        if line:
            with own.request() as granted:
                yield granted
                yield environment.timeout(seconds(size, rate=line))

    return fetch


def _download(environment: simpy.Environment, size: int, fetch: Fetch) -> Process:
    """Fetch all slices of `size` bytes, by several streams; each has its part of the file, as the agent's have."""
    yield environment.timeout(START)
    number, turns = -(-size // SLICE), count()

    def stream(first: int, last: int) -> Process:
        for index in range(first, last):
            yield environment.process(fetch(index, min(SLICE, size - index * SLICE), next(turns)))

    bounds = [number * part // STREAMS for part in range(STREAMS + 1)]
    yield simpy.AllOf(environment, [environment.process(stream(*part)) for part in pairwise(bounds)])


def rows() -> Iterator[Sequence[str]]:
    """The table, its head first."""
    yield "nodes", "caches", "copies from the origin", "until all have it", "longest wait for a slice"
    yield "---:", "---", "---:", "---:", "---:"
    for nodes in (1_000, 10_000, 100_000):
        racks = nodes // RACK
        zones = racks // ZONE
        yield _row(nodes, "none", simulate(tiers=(), nodes=nodes), is_cached=False)
        yield _row(nodes, f"{racks:,} in the racks", simulate(tiers=(racks,), nodes=RACK))
        if zones:
            outcome = simulate(tiers=(zones, ZONE), nodes=RACK)
            yield _row(nodes, f"{racks:,} in the racks, behind {zones} in the zones", outcome)


def _row(nodes: int, caches: str, outcome: Outcome, *, is_cached: bool = True) -> Sequence[str]:
    took = f"{outcome.seconds / 60:,.0f} min" if outcome.seconds > LONG else f"{outcome.seconds:.0f} s"
    late = ": nodes go to the origin" if outcome.longest_wait > PATIENCE else ""
    wait = f"{outcome.longest_wait:.1f} s{late}" if is_cached else ""
    return f"{nodes:,}", caches, f"{outcome.copies:,.0f}", took, wait


def main() -> None:
    """Print the table."""
    for row in rows():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
