"""Runs killed at any moment: nothing but whole files under the right names, and the next run finishes the work."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import time
from pathlib import Path

from fakes.faults import Serve
from fakes.node import FakeNode
from fakes.server import Script, Server

BODIES = {f"f{index}": random.Random(index).randbytes(60_000 * (index + 1)) for index in range(6)}
SLOWLY = Serve(until=0.9, drip=0.002)  # the last tenth a byte at a time, so that kills find transfers under way


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, body in BODIES.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def check_what_is_there(out: Path, former: bytes) -> None:
    """Every destination is absent, what it was before, or whole."""
    for name, body in BODIES.items():
        if (out / name).exists():
            assert (out / name).read_bytes() in {body, former}, name
    tree = out / "tree"
    if tree.exists():
        assert {path.name: path.read_bytes() for path in tree.iterdir()} in (BODIES, {"former": former})


def test_kill_at_any_moment_leaves_nothing_that_is_not_whole(node: FakeNode) -> None:
    former = b"what was there before"
    (node.out / "tree").mkdir(parents=True)
    (node.out / "tree/former").write_bytes(former)
    (node.out / "f0").write_bytes(former)
    packed = archive()
    scripts = {f"/{name}": Script(body=body, faults=[SLOWLY] * 12) for name, body in BODIES.items()}
    chance = random.Random(7)
    with Server(scripts | {"/t": Script(body=packed)}) as server:
        entries = [node.entry(name, server.url(f"/{name}"), body, size=len(body)) for name, body in BODIES.items()]
        entries.append(node.entry("tree", server.url("/t"), packed, extract="tar"))
        file = node.folder / "fetch.yaml"
        file.write_text(node.config(*entries))
        for _ in range(10):
            process = node.start("run", "--config", str(file))
            time.sleep(chance.uniform(0.1, 0.6))
            process.kill()
            process.communicate(timeout=20)
            check_what_is_there(node.out, former)
        scripts |= {path: Script(body=script.body) for path, script in scripts.items()}
        server.scripts.update(scripts)
        ran = node.run("run", "--config", str(file))
    assert ran.code == 0, ran.err
    assert sorted(node.files()) == sorted([*BODIES, ".tree.pxe-fetch-tree", *(f"tree/{name}" for name in BODIES)])
    for name, body in BODIES.items():
        assert hashlib.sha256((node.out / name).read_bytes()).digest() == hashlib.sha256(body).digest()
    check_what_is_there(node.out, b"")
