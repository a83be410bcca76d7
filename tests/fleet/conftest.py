"""The network that all tests of a fleet share: an origin, two caches, sixteen nodes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import caches
from fakes.network import Host, network
from fakes.process import WebServer
from fleet.simulate import Lines

LINES = Lines(origin=100_000_000, cache=400_000_000, node=200_000_000)
NODES = 16
BODY = random.Random(16).randbytes(16 << 20)

_SERVER = """
server {{
  listen 80 default_server;
  root {root};
}}
"""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The hosts."""

    origin: Host
    caches: Sequence[Host]
    nodes: Sequence[Host]


def mirrors(fleet: Fleet, path: str, *, port: int = 80) -> Sequence[object]:
    """Two tiers: the caches, which each node asks in an order of its own, and the origin."""
    return [[f"http://{cache.address}{path}" for cache in fleet.caches], f"http://{fleet.origin.address}:{port}{path}"]


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    with network() as made:
        yield Fleet(
            origin=made.host("origin", rate=LINES.origin),
            caches=[made.host(f"cache-{letter}", rate=LINES.cache) for letter in "ab"],
            nodes=[made.host(f"node{number}", rate=LINES.node) for number in range(NODES)],
        )


@contextlib.contextmanager
def web_server(host: Host, folder: Path, *, body: bytes) -> Iterator[WebServer]:
    """An nginx on `host` that has `body` at /file."""
    (folder / "root").mkdir(parents=True)
    (folder / "root/file").write_bytes(body)
    printed = _SERVER.format(root=folder / "root")
    with caches.cache("nginx-cache", folder, printed=printed, port=80, inside=host.inside) as server:
        yield server
