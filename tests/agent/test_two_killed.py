"""Two runs at once on one node, of which one or the other is killed at any moment: what is placed is always whole.

Whenever a run is done, the next one wants other bytes at the same destinations. `pytest --full` kills 200 times.
"""

from __future__ import annotations

import gzip
import io
import random
import signal
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fakes.content import Content
from fakes.exchange import Exchange
from fakes.faults import Serve
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.commands import Exit

FEW, ALL = 15, 200
VERSIONS = 4
MEMBERS = 120


@dataclass(frozen=True)
class Slowly(Serve):
    """A proper answer in a fraction of a second, so that a kill falls into it."""

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        for at in range(start, end, 1 << 17):
            self._piece(exchange, content.read(at, min(end, at + (1 << 17))), at=at)
            exchange.wait(0.01)


def members(version: int) -> Mapping[str, bytes]:
    return {f"f{index:03}": random.Random(version * 1000 + index).randbytes(3_000 + index) for index in range(MEMBERS)}


def archive(version: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, body in members(version).items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


FILES = [random.Random(100 + version).randbytes(900_000) for version in range(VERSIONS)]
PLAINS = [random.Random(200 + version).randbytes(700_000) for version in range(VERSIONS)]
TREES = [members(version) for version in range(VERSIONS)]
SENT = {
    **{f"/file-{version}": body for version, body in enumerate(FILES)},
    **{f"/plain-{version}": gzip.compress(body, 1) for version, body in enumerate(PLAINS)},
    **{f"/tree-{version}": archive(version) for version in range(VERSIONS)},
}


def start(node: FakeNode, server: Server, version: int) -> subprocess.Popen[str]:
    """A run that wants the bytes of `version`."""
    file = node.folder / f"{version}.yaml"
    if not file.exists():
        extracted = {"file": "none", "plain": "decompress", "tree": "tar"}
        entries = [
            dict(node.entry(kind, server.url(f"/{kind}-{version}"), SENT[f"/{kind}-{version}"], extract=extract))
            for kind, extract in extracted.items()
        ]
        file.write_text(node.config(*entries))
    return node.start("run", "--config", str(file))


def check_what_is_there(node: FakeNode, *, beside: subprocess.Popen[str]) -> None:
    """Each destination is absent, or the whole of some version, at a moment of the run that goes on."""
    beside.send_signal(signal.SIGSTOP)
    try:
        for name, bodies in (("file", FILES), ("plain", PLAINS)):
            if (node.out / name).exists():
                assert (node.out / name).read_bytes() in bodies, name
        if (node.out / "tree").exists():
            assert {path.name: path.read_bytes() for path in (node.out / "tree").iterdir()} in TREES
    finally:
        beside.send_signal(signal.SIGCONT)


def ended(process: subprocess.Popen[str]) -> bool:
    """Whether it is done; a run that has failed is an error."""
    if process.poll() is None:
        return False
    _, err = process.communicate()
    assert process.returncode == Exit.DONE, err
    return True


def test_what_is_placed_is_whole_and_nothing_is_left_beside_it(node: FakeNode, full: bool) -> None:  # noqa: FBT001
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed: {seed}")  # shown where it fails
    chance = random.Random(seed)
    version = kills = 0
    with Server({path: Script(body=body, then=Slowly()) for path, body in SENT.items()}) as server:
        runs = [start(node, server, version), start(node, server, version)]
        try:
            while kills < (ALL if full else FEW):
                asked, until = len(server.asked), time.monotonic() + chance.uniform(0, 2)
                while len(server.asked) == asked and time.monotonic() < until:
                    time.sleep(0.002)
                time.sleep(chance.uniform(0, 0.3))
                running = []
                for index, process in enumerate(runs):
                    if ended(process):
                        version = (version + 1) % VERSIONS
                        runs[index] = start(node, server, version)
                    else:
                        running.append(index)
                if running:
                    index = chance.choice(running)
                    runs[index].kill()
                    runs[index].communicate(timeout=30)
                    kills += 1
                    check_what_is_there(node, beside=runs[1 - index])
                    runs[index] = start(node, server, version)
            for process in runs:
                _, err = process.communicate(timeout=120)
                assert process.returncode == Exit.DONE, err
        finally:
            for process in runs:
                process.kill()
                process.wait()
        last = start(node, server, version)
        _, err = last.communicate(timeout=120)
    assert last.returncode == Exit.DONE, err
    assert (node.out / "file").read_bytes() == FILES[version]
    assert (node.out / "plain").read_bytes() == PLAINS[version]
    assert {path.name: path.read_bytes() for path in (node.out / "tree").iterdir()} == TREES[version]
    records = [".plain.pxe-fetch-content", ".tree.pxe-fetch-tree"]
    assert node.files() == sorted([*records, "file", "plain", *(f"tree/{name}" for name in TREES[version])])
