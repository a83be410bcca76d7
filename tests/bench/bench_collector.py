"""A boot storm against a real collector: 5,000 nodes report, and a page is open. Prints what it took.

    python tests/bench/bench_collector.py [--nodes 5000] [--seconds 60] [--database URL]

Each node sends what an agent sends during ten minutes (its start, each change of phase of its artifacts, its end), in
`--seconds`. Goals: 99 % of the POSTs within 100 ms, no report lost, 300 MB of memory, changes on the page within 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.collector import TOKEN, Collector, Document, collector, report

ARTIFACTS = 3  # of a node
CONNECTIONS = 64  # nodes that report at the same moment
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
    """Reports that are sent when their time has come."""

    port: int
    waiting: list[tuple[float, int, bytes]] = field(default_factory=list)  # (seconds, node, body), the next one last
    began: float = 0.0
    took: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)

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
        await asyncio.gather(*(self._connection() for _ in range(CONNECTIONS)))

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while self.waiting:
            at, number, body = self.waiting.pop()
            await asyncio.sleep(max(self.began + at - time.monotonic(), 0))
            head = (
                f"POST /report HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"X-Forwarded-For: 10.{number >> 16}.{number >> 8 & 255}.{number & 255}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            sent = time.monotonic()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            self.took.append(time.monotonic() - sent)
            status = int(answer.split()[1])
            if status != 204:
                self.refused[status] = self.refused.get(status, 0) + 1
                length = int(answer.lower().split(b"content-length: ")[1].split()[0])
                await reader.readexactly(length)


async def watch(collecting: Collector, delays: list[float], end: asyncio.Event) -> None:
    """How long the page's two requests take, and how old its summary is when it comes."""
    while not end.is_set():
        began = time.monotonic()
        await asyncio.to_thread(lambda: (collecting.get("summary"), collecting.get("nodes", size=100)))
        delays.append(time.monotonic() - began)
        await asyncio.sleep(1)


def memory(pid: int) -> float:
    """The most memory that the process has had, in MB (proc_pid_status(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


async def storm(collecting: Collector, *, nodes: int, seconds: float) -> None:
    one = Storm(port=int(collecting.url.rsplit(":", 1)[1]))
    delays: list[float] = []
    end = asyncio.Event()
    watching = asyncio.create_task(watch(collecting, delays, end))
    await one.run(nodes, seconds)
    elapsed = time.monotonic() - one.began
    end.set()
    await watching
    took = sorted(one.took)
    print(f"{len(took):,} POSTs in {elapsed:.0f} s; refused: {one.refused or 'none'}")
    print(
        f"a POST: median {statistics.median(took) * 1e3:.0f} ms, p99 {took[int(len(took) * 0.99)] * 1e3:.0f} ms,",
        end=" ",
    )
    print(f"longest {took[-1] * 1e3:.0f} ms")
    print(
        f"the page: median {statistics.median(delays) * 1e3:.0f} ms, longest {max(delays) * 1e3:.0f} ms (and up to 1 s)"
    )
    states = collecting.get("summary")["states"]
    print(f"lost: {nodes - states['done'] - states['failed']} of {nodes:,}; {states['failed']} have failed")
    print(f"memory: {memory(collecting.process.pid):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--database", default="")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        collector(Path(folder, "c"), database=arguments.database) as collecting,
    ):
        asyncio.run(storm(collecting, nodes=arguments.nodes, seconds=arguments.seconds))


if __name__ == "__main__":
    main()
