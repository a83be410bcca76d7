"""Sixteen nodes that ask at once, behind two of the caches that `pxe-pack snippet` prints: what the origin sends."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import ports
from fakes.network import Host
from fakes.nginx import nginx
from fakes.process import WebServer
from fleet.conftest import BODY, LINES, NODES, Fleet, mirrors, web_server
from fleet.simulate import simulate
from fleet.storm import CHUNK, Sources, check, printed_cache, storm

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="networks with lines of their own take root")
AGENTS = 300


@dataclass(frozen=True, kw_only=True)
class Site:
    """The fleet with its servers running."""

    fleet: Fleet
    folder: Path
    origin: WebServer
    caches: Sequence[WebServer]

    def copies(self) -> float:
        """How often the origin has sent the file so far."""
        return sum(int(line.split()[-3]) for line in self.origin.requests()) / len(BODY)

    def nodes(self) -> Sequence[tuple[Host, Sources]]:
        return [(node, {"urls": mirrors(self.fleet, "/file")}) for node in self.fleet.nodes]


@pytest.fixture
def site(fleet: Fleet, tmp_path: Path) -> Iterator[Site]:
    """The fleet with an origin and two caches, which have nothing yet."""
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(web_server(fleet.origin, tmp_path / "origin", body=BODY))
        url = f"http://{fleet.origin.address}"
        yield Site(
            fleet=fleet,
            folder=tmp_path,
            origin=origin,
            caches=[
                stack.enter_context(printed_cache(host, tmp_path / host.name, origin=url)) for host in fleet.caches
            ],
        )


def test_the_origin_sends_a_copy_to_each_cache_in_the_time_that_the_simulation_says(site: Site) -> None:
    with storm(site.folder, body=BODY, nodes=site.nodes()) as run:
        ran = run.end()
    check(ran)
    simulated = simulate(tiers=(len(site.caches),), nodes=NODES // len(site.caches), size=len(BODY), lines=LINES)
    assert simulated.copies == len(site.caches)
    # A busy machine is slower than its lines; nothing is faster.
    took = statistics.median(one.seconds for one in ran)
    assert 0.75 * simulated.seconds < took < 2 * simulated.seconds
    assert site.copies() <= len(site.caches) + 0.2


def test_all_nodes_finish_although_a_cache_dies(site: Site) -> None:
    dies, host = site.caches[0], site.fleet.caches[0]
    with storm(site.folder, body=BODY, nodes=site.nodes()) as run:
        until = time.monotonic() + 30
        while sum(ports.taken(80, inside=host.inside)) < NODES // 2 * len(BODY) // 4:
            assert time.monotonic() < until, "the nodes take nothing from it"
            time.sleep(0.02)
        dies.kill()
        ran = run.end()
    check(ran)
    assert site.copies() <= len(site.caches) + 2


def test_all_nodes_finish_from_warm_caches_although_the_origin_is_dead(site: Site) -> None:
    with storm(site.folder / "first", body=BODY, nodes=site.nodes()[:2]) as run:
        check(run.end())
    site.origin.kill()
    with storm(site.folder, body=BODY, nodes=site.nodes()) as run:
        check(run.end())


def test_no_node_installs_what_a_cache_made_up(fleet: Fleet, tmp_path: Path) -> None:
    """Each of its chunks has one wrong byte."""
    made_up = bytearray(BODY)
    made_up[CHUNK // 2 :: CHUNK] = bytes(byte ^ 1 for byte in made_up[CHUNK // 2 :: CHUNK])
    liar, honest = fleet.caches
    url = f"http://{fleet.origin.address}"
    with (
        web_server(fleet.origin, tmp_path / "origin", body=BODY),
        web_server(liar, tmp_path / "liar", body=bytes(made_up)),
        printed_cache(honest, tmp_path / "honest", origin=url),
        storm(
            tmp_path,
            body=BODY,
            nodes=[(node, {"urls": mirrors(fleet, "/file")}) for node in fleet.nodes],
        ) as run,
    ):
        ran = run.end()
    check(ran)
    named = [f"http://{liar.address}/file is no longer used" in one.log for one in ran]
    assert named.count(True) >= NODES // 2


def test_hundreds_of_agents_on_one_server_need_one_attempt_each(tmp_path: Path) -> None:
    body = BODY[: 1 << 20]
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(body)
    with (
        nginx(tmp_path / "nginx", root=root) as server,
        storm(tmp_path, body=body, nodes=[(None, {"url": server.url("/file")})] * AGENTS) as run,
    ):
        ran = run.end()
    assert [one.is_fine for one in ran] == [True] * AGENTS, [one.log for one in ran if not one.is_fine][:3]
    assert {one.attempts for one in ran} == {1}
