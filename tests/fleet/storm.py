"""A boot storm: an origin, caches and nodes on lines of their own, and the agent on all nodes at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fakes import caches
from fakes.chunks import chunk_digests
from fakes.network import Host
from fakes.process import WebServer
from pxe_pack.caches import CACHES
from pxe_pack.caches.cache import Cache, origin_of

CHUNK = 4 << 20  # bytes
CREDENTIAL = "pxe-fetch.site"
Sources = Mapping[str, object]  # the keys of an artifact that say where it is
AGENTS = Path(__file__).with_name("agents.py")
DEADLINE = 120  # seconds


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How the agent ended on one node."""

    code: int
    seconds: float
    log: str  # what it logged: the journal's messages
    attempts: int
    is_right: bool  # the file is there, and has the right bytes

    @property
    def is_fine(self) -> bool:
        return self.code == 0 and self.is_right


@dataclass(frozen=True, kw_only=True)
class Storm:
    """A run of the agent on many nodes, which has begun."""

    body: bytes
    folders: Sequence[Path]
    process: subprocess.Popen[bytes]

    def end(self) -> Sequence[Ran]:
        """Wait for all nodes; how each ended."""
        shown, _ = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0
        digest = hashlib.sha256(self.body).digest()
        found = []
        for folder, ended in zip(self.folders, json.loads(shown), strict=True):
            file = folder / "out/file"
            is_right = file.exists() and hashlib.sha256(file.read_bytes()).digest() == digest
            state = json.loads((folder / "run/state.json").read_text())
            ran = Ran(
                code=ended["code"],
                seconds=ended["seconds"],
                log=(folder / "log").read_text(),
                attempts=state["artifacts"][0]["attempts"],
                is_right=is_right,
            )
            found.append(ran)
            shutil.rmtree(folder / "out", ignore_errors=True)
        return found


@contextlib.contextmanager
def storm(
    folder: Path, *, body: bytes, nodes: Sequence[tuple[Host | None, Sources]], secret: str = ""
) -> Iterator[Storm]:
    """The agent on each of `nodes`, a host (None: this one) and where its artifact comes from; they all begin at once.

    The artifact has chunk digests unless it is in a registry; `secret` is what CREDENTIAL holds.
    """
    (folder / "credentials").mkdir(parents=True)
    (folder / "credentials" / CREDENTIAL).write_text(secret)
    digests = chunk_digests(body, size=CHUNK)
    commands, folders = [], []
    for number, (host, sources) in enumerate(nodes):
        home = folder / f"node{number}"
        (home / "root").mkdir(parents=True)
        pinned = {} if "oci" in sources else {"chunks": {"size": CHUNK, "sha256": digests}}
        artifact = {"name": "file", "dest": str(home / "out/file"), "size": len(body), **sources, **pinned}
        config = {"version": 1, "allowed_roots": [str(home / "out")]}
        (home / "fetch.yaml").write_text(yaml.safe_dump(config | {"artifacts": [artifact]}))
        commands.append(
            {
                "root": str(home / "root"),
                "output": str(home / "log"),
                "environment": {
                    "PATH": os.environ["PATH"],
                    "RUNTIME_DIRECTORY": str(home / "run"),
                    "CREDENTIALS_DIRECTORY": str(folder / "credentials"),
                },
                "arguments": ["run", "--config", str(home / "fetch.yaml")],
                "namespace": host.namespace if host else None,
            }
        )
        folders.append(home)
    with subprocess.Popen([sys.executable, AGENTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(json.dumps(commands).encode())
        process.stdin.close()
        process.stdin = None
        try:
            yield Storm(body=body, folders=folders, process=process)
        finally:
            process.kill()


def check(ran: Sequence[Ran]) -> None:
    """No node failed, and none waited for much longer than the others."""
    assert [one.is_fine for one in ran] == [True] * len(ran), [one.log for one in ran if not one.is_fine]
    seconds = sorted(one.seconds for one in ran)
    assert seconds[-1] <= 2 * statistics.median(seconds), seconds


@contextlib.contextmanager
def printed_cache(host: Host, folder: Path, *, origin: str) -> Iterator[WebServer]:
    """The printed nginx cache of `origin`, on `host`."""
    described = Cache(origin=origin_of(origin), port=80, folder=str(folder / "cached"))
    printed = CACHES["nginx-cache"](described)
    with caches.cache("nginx-cache", folder, printed=printed, port=80, inside=host.inside) as server:
        yield server
