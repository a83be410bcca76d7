"""Runs killed at any moment: nothing but whole files under the right names, and the next run goes on where they were.

A run's requests say what it had found: the first for a file begins at the byte where its part ended on the disk.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.archives import archive
from fakes.content import Content
from fakes.exchange import Exchange
from fakes.faults import FOREVER, Serve, drip
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from fakes.transfers import cut
from pxe_fetch.contract.commands import Exit

CHUNK = 256 * 1024
KILLS = 100
FORMER = b"what was there before"
MEMBERS = {f"f{index}": random.Random(index).randbytes(70_000 * (index + 1)) for index in range(8)}
FILES = {f"w{index}": random.Random(index).randbytes(1_400_000 + index) for index in range(3)}
CHUNKED = {f"c{index}": random.Random(10 + index).randbytes(6 * CHUNK + index) for index in range(3)}
PLAIN = random.Random(20).randbytes(1_500_000)


@dataclass(frozen=True)
class Falters(Serve):
    """A proper answer that sends up to a MiB, and then no more; how much is a matter of chance."""

    chance: random.Random = field(default_factory=random.Random)

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        stop = min(end, start + self.chance.randrange(1 << 20))
        exchange.send_body(content.read(start, stop), at=start)
        if stop < end:
            exchange.wait(FOREVER)


PACKED = {"tree": archive(MEMBERS, is_gzipped=True), "plain": gzip.compress(PLAIN, 1)}
BODIES = FILES | CHUNKED | PACKED
PLACED = FILES | CHUNKED | {"plain": PLAIN}


def listed(body: bytes, *, chunk: int) -> Sequence[str]:
    """The digests of the chunks of `body`, in hexadecimal."""
    digests = cut(body, chunk=chunk).digests
    return [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]


def entries(node: FakeNode, server: Server) -> Sequence[Entry]:
    """Every kind of artifact, in an order that has them all under way early."""
    found = []
    for name in sorted(BODIES, key=lambda name: name[::-1]):
        entry = dict(node.entry(name, server.url(f"/{name}"), BODIES[name], size=len(BODIES[name])))
        if name in CHUNKED:
            entry["chunks"] = {"size": CHUNK, "sha256": listed(BODIES[name], chunk=CHUNK)}
            del entry["sha256"]
        entry["extract"] = {"tree": "tar", "plain": "decompress"}.get(name, "none")
        found.append(entry)
    return found


def check_what_is_there(out: Path) -> None:
    """Every destination is absent, what it was before, or whole."""
    for name, body in PLACED.items():
        if (out / name).exists():
            assert (out / name).read_bytes() in {body, FORMER}, name
    tree = out / "tree"
    if tree.exists():
        assert {path.name: path.read_bytes() for path in tree.iterdir()} in (MEMBERS, {"former": FORMER})


def here(out: Path, name: str) -> int:
    """Bytes of the artifact in its part file: of one in chunks, those of right ones."""
    part = out / f".{name}.pxe-fetch-part"
    if not part.exists():
        return 0
    data = part.read_bytes()
    if name not in CHUNKED:
        assert data == BODIES[name][: len(data)], name
        return len(data)
    chunk_map = cut(BODIES[name], chunk=CHUNK)
    right = 0
    for index in range(chunk_map.number):
        start, end = chunk_map.start(index), chunk_map.start(index + 1)
        right += (end - start) * (data[start:end] == BODIES[name][start:end])
    return right


def check_resumed(server: Server, before: Mapping[str, int], since: Mapping[str, int]) -> None:
    """The run began each file where its part ended, and asked for nothing of one that was all there."""
    for name in (*FILES, *PACKED):
        asked = server.asked_for(f"/{name}")[since[name] :]
        if asked:
            assert asked[0].range == (f"bytes={before[name]}-" if before[name] else None), name
            assert before[name] < len(BODIES[name])


def check_nothing_was_lost(node: FakeNode) -> None:
    """A run that was told to stop has written all that it had received."""
    artifacts = node.state()["artifacts"]
    assert isinstance(artifacts, list)
    for told in artifacts:
        if told["name"] not in CHUNKED and told["phase"] == "fetching" and told["bytes"]:
            assert told["bytes"] == here(node.out, told["name"])


def let_run(process: subprocess.Popen[str], server: Server, *, number: int, chance: random.Random) -> None:
    """Until a moment after it has asked for something, most often, or one while it starts."""
    if chance.random() < 0.15:
        time.sleep(chance.uniform(0, 0.2))
        return
    until = time.monotonic() + 10
    while len(server.asked) == number and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.12))


def begin(node: FakeNode) -> None:
    """What an earlier deployment left, other bytes."""
    for path in sorted(node.out.rglob("*"), reverse=True) if node.out.exists() else ():
        path.rmdir() if path.is_dir() else path.unlink()
    (node.out / "tree").mkdir(parents=True)
    (node.out / "tree/former").write_bytes(FORMER)
    for name in ("w0", "c0", "plain"):
        (node.out / name).write_bytes(FORMER)


def is_done(out: Path) -> bool:
    return (out / "tree/f7").exists() and all(
        (out / name).exists() and (out / name).stat().st_size == len(body) for name, body in PLACED.items()
    )


@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, KILLS), (signal.SIGTERM, 20)], ids=["kill", "term"])
def test_ended_at_random_moments_no_run_leaves_what_the_next_cannot_finish(
    number: signal.Signals, times: int, node: FakeNode
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed: {seed}")  # shown where it fails
    chance = random.Random(seed)
    begin(node)
    with Server(
        {f"/{name}": Script(body=body, then=Falters(chance=chance)) for name, body in BODIES.items()}
    ) as server:
        file = node.folder / "fetch.yaml"
        file.write_text(node.config(*entries(node, server)))
        for _ in range(times):
            if is_done(node.out):
                begin(node)
            before = {name: here(node.out, name) for name in BODIES}
            since = {name: len(server.asked_for(f"/{name}")) for name in BODIES}
            process = node.start("run", "--config", str(file))
            let_run(process, server, number=len(server.asked), chance=chance)
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
            assert "Traceback" not in err
            check_what_is_there(node.out)
            check_resumed(server, before, since)
            if process.returncode == Exit.DEADLINE:
                check_nothing_was_lost(node)

        server.scripts |= {f"/{name}": Script(body=body) for name, body in BODIES.items()}
        before = {name: here(node.out, name) for name in BODIES}
        sent = {name: server.sent(f"/{name}") for name in BODIES}
        ran = node.run("run", "--config", str(file))
        assert ran.code == 0, ran.err
        for name, body in BODIES.items():
            came = server.sent(f"/{name}") - sent[name]
            assert came <= len(body) - before[name], name
    check_what_is_there(node.out)
    records = [".plain.pxe-fetch-content", ".tree.pxe-fetch-tree"]
    assert sorted(node.files()) == sorted([*records, *PLACED, *(f"tree/{name}" for name in MEMBERS)])
    for name, body in PLACED.items():
        assert hashlib.sha256((node.out / name).read_bytes()).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("digests", ["whole", "chunks"])
def test_killed_on_a_slow_line_the_next_run_goes_on_near_there(digests: str, node: FakeNode) -> None:
    came = 100_000  # bytes that come at once, far less than a buffer holds; those that follow come one by one
    with Server({"/m": Script(body=PLAIN, faults=[drip(came, every=0.01)])}) as server:
        entry = dict(node.entry("m", server.url("/m"), PLAIN, size=len(PLAIN)))
        if digests == "chunks":
            del entry["sha256"]
            entry["chunks"] = {"size": 4 * CHUNK, "sha256": listed(PLAIN, chunk=4 * CHUNK)}
        file = node.folder / "fetch.yaml"
        file.write_text(node.config(entry, parallel=1))
        with node.start("run", "--config", str(file)) as process:
            part, until = node.out / ".m.pxe-fetch-part", time.monotonic() + 20
            while not part.exists() or part.stat().st_size < came:
                assert process.poll() is None
                assert time.monotonic() < until, "nothing is written while bytes come"
                time.sleep(0.01)
            process.kill()
        left = part.stat().st_size
        assert node.run("run", "--config", str(file)).code == 0
        first = server.asked[1].range or ""
    assert int(first.removeprefix("bytes=").partition("-")[0]) == left
    assert (node.out / "m").read_bytes() == PLAIN
