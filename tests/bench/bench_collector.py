"""A boot storm against real collectors: 5,000 nodes report, and a page is open. Prints what it took.

    python tests/bench/bench_collector.py [--nodes 5000] [--seconds 60] [--postgresql] [--kill]

Each node sends what an agent sends during ten minutes (its start, each change of phase of its artifacts, its end), in
`--seconds`. With `--postgresql`, two collectors share a database of Debian's PostgreSQL, and nodes report to either,
as through a balancer. With `--kill`, one collector is ended by SIGKILL half-way, and started again two seconds later.
Goals: 99 % of the POSTs within 100 ms, no acknowledged report lost, 300 MB of memory, changes on the page within 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import ports
from fakes.collector import TOKEN, Collector, Document, collector, mac_of, report
from fakes.postgresql import postgresql

ARTIFACTS = 3  # of a node
CONNECTIONS = 64  # nodes that report at the same moment
NO_CONTENT = 204
PHASES = ("waiting", "fetching", "verifying", "placed")


def story(number: int, chance: random.Random) -> Iterator[Document]:
    """The reports of one node, from its first to its last."""
    document = report(number, phase="locating")
    names = [f"artifact-{at}" for at in range(ARTIFACTS)]
    (sample,) = report(number)["artifacts"]
    yield document
    artifacts = [sample | {"name": name, "phase": "waiting", "bytes": 0, "bytes_received": 0} for name in names]
    document |= {"phase": "fetching", "artifacts": artifacts}
    for artifact in artifacts:
        for phase in PHASES[1::2]:
            artifact.update(phase=phase, bytes=1000 if phase == "placed" else 0)
            artifact["bytes_received"] = artifact["bytes"]
            document["seconds"] += chance.uniform(10, 50)
            yield document
    fails = chance.random() < 0.02
    ended = report(number, phase="failed" if fails else "done", run=document["run"], seconds=document["seconds"] + 1)
    lines = [f"line {line} of what this node's journal has last" for line in range(200)] if fails else []
    yield ended | {"artifacts": artifacts, "journal": lines}


@dataclass(kw_only=True)
class Storm:
    """Reports that are sent when their time has come, and again until they are answered."""

    ports: list[int]  # of the collectors
    waiting: list[tuple[float, int, bytes]] = field(default_factory=list)  # (seconds, node, body), the next one last
    began: float = 0.0
    took: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    broken: int = 0  # connections
    acknowledged: dict[int, Document] = field(default_factory=dict)  # node -> the report of its that has come furthest

    async def run(self, nodes: int, seconds: float) -> None:
        chance = random.Random(1)
        due = []
        for number in range(nodes):
            bodies = [json.dumps(one).encode() for one in story(number, chance)]
            start = chance.uniform(0, seconds * 0.5)
            step = (seconds - start) / len(bodies)
            due += [(start + at * step * chance.uniform(0.5, 1), number, body) for at, body in enumerate(bodies)]
        self.waiting = sorted(due, reverse=True)
        print(f"{len(due):,} reports of {nodes:,} nodes, {len(due) / seconds:,.0f} a second")
        self.began = time.monotonic()
        await asyncio.gather(*(self._connection(at) for at in range(CONNECTIONS)))

    async def _connection(self, first: int) -> None:
        """Send what is due on one connection, to the next collector when that breaks."""
        collectors = itertools.cycle(self.ports[first % len(self.ports) :] + self.ports[: first % len(self.ports)])
        reader, writer = await self._connected(collectors)
        while self.waiting:
            at, number, body = self.waiting.pop()
            await asyncio.sleep(max(self.began + at - time.monotonic(), 0))
            sent = time.monotonic()
            while not await self._answered(reader, writer, number, body):
                self.broken += 1
                writer.close()
                reader, writer = await self._connected(collectors)
            self.took.append(time.monotonic() - sent)

    async def _connected(self, collectors: Iterator[int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", next(collectors))
            except OSError:
                await asyncio.sleep(0.1)

    async def _answered(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, body: bytes
    ) -> bool:
        """Send one report; False if the connection breaks before the answer has come."""
        head = (
            f"POST /report HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"X-Forwarded-For: 10.{number >> 16}.{number >> 8 & 255}.{number & 255}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split()[1])
            if status != NO_CONTENT:
                self.refused[status] = self.refused.get(status, 0) + 1
                await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split()[0]))
                return True
        except (OSError, asyncio.IncompleteReadError):
            return False
        document = json.loads(body)
        known = self.acknowledged.get(number)
        if known is None or (document["final"], document["seconds"]) >= (known["final"], known["seconds"]):
            self.acknowledged[number] = document
        return True


async def watch(collecting: Collector, delays: list[float], end: asyncio.Event) -> None:
    """How long the page's two requests take, and how old its summary is when it comes."""
    while not end.is_set():
        began = time.monotonic()
        await asyncio.to_thread(lambda: (collecting.get("summary"), collecting.get("nodes", size=100)))
        delays.append(time.monotonic() - began)
        await asyncio.sleep(1)


async def kill(collecting: Collector, *, after: float) -> None:
    """End the collector by SIGKILL, and start it again."""
    await asyncio.sleep(after)
    print(f"SIGKILL of {collecting.url}")
    collecting.process.kill()
    await asyncio.sleep(2)
    await asyncio.to_thread(collecting.restart)


def lost(collecting: Collector, acknowledged: dict[int, Document]) -> list[int]:
    """The nodes of which the collector knows less than was acknowledged."""
    known: dict[str, Document] = {}
    for page in itertools.count(1):
        found = collecting.get("nodes", size=1000, page=page)["nodes"]
        known |= {one["mac"]: one for one in found}
        if not found:
            break

    def is_lost(number: int, document: Document) -> bool:
        node = known.get(mac_of(number))
        received = sum(one["bytes_received"] for one in document["artifacts"])
        return (
            node is None
            or node["run"] != document["run"]
            or (document["final"] and node["exit_code"] != document["exit_code"])
            or node["bytes"] < received
        )

    return [number for number, document in acknowledged.items() if is_lost(number, document)]


def memory(pid: int) -> float:
    """The most memory that the process has had, in MB (proc_pid_status(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


async def storm(collectors: list[Collector], *, nodes: int, seconds: float, is_killed: bool) -> None:
    one = Storm(ports=[int(each.url.rsplit(":", 1)[1]) for each in collectors])
    delays: list[float] = []
    end = asyncio.Event()
    watching = asyncio.create_task(watch(collectors[-1], delays, end)) if len(collectors) > 1 or not is_killed else None
    killing = asyncio.create_task(kill(collectors[0], after=seconds / 2)) if is_killed else None
    await one.run(nodes, seconds)
    elapsed = time.monotonic() - one.began
    end.set()
    for task in filter(None, (watching, killing)):
        await task
    took = sorted(one.took)
    print(f"{len(took):,} POSTs in {elapsed:.0f} s; refused: {one.refused or 'none'}; broken: {one.broken}")
    median, p99, longest = (
        seconds * 1e3 for seconds in (statistics.median(took), took[int(len(took) * 0.99)], took[-1])
    )
    print(f"a POST: median {median:.0f} ms, p99 {p99:.0f} ms, longest {longest:.0f} ms")
    if delays:
        median, longest = statistics.median(delays) * 1e3, max(delays) * 1e3
        print(f"the page: median {median:.0f} ms, longest {longest:.0f} ms (and up to 1 s)")
    for each in collectors:
        print(f"lost: {len(lost(each, one.acknowledged))} of {len(one.acknowledged):,} nodes that were answered")
        print(f"memory: {memory(each.process.pid):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--postgresql", action="store_true", help="two collectors on one PostgreSQL")
    parser.add_argument("--kill", action="store_true", help="SIGKILL of one collector half-way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL is another user
        database = stack.enter_context(postgresql(folder / "postgresql")) if arguments.postgresql else ""
        collectors = [
            # The port stays the same when one is started again.
            stack.enter_context(collector(folder / part, database=database, listen=f"127.0.0.1:{ports.free()}"))
            for part in (("a", "b") if arguments.postgresql else ("a",))
        ]
        asyncio.run(storm(collectors, nodes=arguments.nodes, seconds=arguments.seconds, is_killed=arguments.kill))


if __name__ == "__main__":
    main()
