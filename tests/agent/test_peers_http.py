"""Real servers by http, and a balancer in front of two: plain, resumed, in chunks, changed, missing, ended."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import ports, waiting
from fakes.apache import apache
from fakes.haproxy import haproxy
from fakes.lighttpd import lighttpd
from fakes.nginx import Nginx, nginx
from fakes.node import Entry, FakeNode
from fakes.process import WebServer
from fakes.transfers import cut
from pxe_fetch.contract.commands import Exit

CHUNK = 192 * 1024
BODY = random.Random(71).randbytes(12 * CHUNK + 12345)
OTHER = random.Random(72).randbytes(len(BODY))
LONG_AGO = 1_600_000_000  # a file that has just been written has no strong ETag
SLOW = BODY[: 4 * CHUNK + 12345]
HERE = 1_234_567  # bytes that an earlier run has left


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server, and the folder that it serves."""

    server: WebServer | Nginx
    root: Path

    def put(self, name: str, body: bytes, *, at: int = LONG_AGO) -> None:
        """Have `name` be `body` from now on, as rsync does it: who reads the former file goes on reading it."""
        new = self.root / f".{name}.new"
        new.write_bytes(body)
        os.utime(new, (at, at))
        new.replace(self.root / name)


@contextlib.contextmanager
def balanced(folder: Path, *, root: Path) -> Iterator[WebServer]:
    """HAProxy in front of an Apache and a lighttpd: of one file they have two ETags."""
    folder.mkdir()
    with (
        apache(folder / "apache", root=root) as one,
        lighttpd(folder / "lighttpd", root=root) as other,
        haproxy(folder / "haproxy", backends=[one.port, other.port]) as server,
    ):
        yield server


SERVERS: dict[str, Callable[..., AbstractContextManager[WebServer | Nginx]]] = {
    "nginx": nginx,
    "apache": apache,
    "lighttpd": lighttpd,
    "haproxy": balanced,
}


@pytest.fixture(scope="module", params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    root = folder / "root"
    root.mkdir()
    with SERVERS[request.param](folder / "run", root=root) as server:
        made = Site(server=server, root=root)
        made.put("m.bin", BODY)
        yield made


def chunked(entry: Entry, body: bytes) -> Entry:
    """`entry` with a digest of each chunk instead of one of the whole."""
    digests = cut(body, chunk=CHUNK).digests
    listed = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
    kept = {key: value for key, value in entry.items() if key != "sha256"}
    return kept | {"size": len(body), "chunks": {"size": CHUNK, "sha256": listed}}


def begun(node: FakeNode, body: bytes) -> None:
    """An earlier run has left `body` of the artifact m."""
    node.out.mkdir()
    (node.out / ".m.pxe-fetch-part").write_bytes(body)


def test_fetches_a_file_at_the_first_attempt(site: Site, node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", site.server.url("/m.bin"), BODY, size=len(BODY)))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    told = ran.artifact("m")
    assert (told["attempts"], told["bytes_received"]) == (1, len(BODY))


def test_fetches_chunks_side_by_side(site: Site, node: FakeNode) -> None:
    ran = node.run_config(chunked(node.entry("m", site.server.url("/m.bin"), BODY), BODY))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["bytes_received"] == len(BODY)


def test_goes_on_where_an_earlier_run_ended(site: Site, node: FakeNode) -> None:
    begun(node, BODY[:HERE])
    ran = node.run_config(node.entry("m", site.server.url("/m.bin"), BODY))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["bytes_received"] == len(BODY) - HERE


def test_a_part_of_another_file_costs_one_more_download(site: Site, node: FakeNode) -> None:
    begun(node, OTHER[:HERE])
    ran = node.run_config(node.entry("m", site.server.url("/m.bin"), BODY))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["bytes_received"] == 2 * len(BODY) - HERE


def test_a_part_with_all_and_more_is_fetched_anew(site: Site, node: FakeNode) -> None:
    begun(node, BODY + b"more")
    ran = node.run_config(node.entry("m", site.server.url("/m.bin"), BODY))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY


def test_a_missing_file_is_told_so(site: Site, node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", site.server.url("/no.bin"), BODY))
    assert (ran.code, ran.state["cause"]) == (Exit.NETWORK, "not-found")
    assert "the server answered 404" in ran.err
    assert node.files() == []


def test_many_small_files_share_connections(site: Site, node: FakeNode) -> None:
    bodies = {f"s{number}": random.Random(number).randbytes(1000 + number) for number in range(40)}
    for name, body in bodies.items():
        site.put(name, body)
    ran = node.run_config(*(node.entry(name, site.server.url(f"/{name}"), body) for name, body in bodies.items()))
    assert ran.code == Exit.DONE, ran.err
    assert {name: (node.out / name).read_bytes() for name in bodies} == bodies
    assert all(ran.artifact(name)["attempts"] == 1 for name in bodies)


@pytest.fixture(params=["nginx", "apache", "lighttpd"])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """One that sends `/slow/m.bin` in seconds, and may be ended and started again."""
    root = tmp_path / "root-of-server"
    root.mkdir()
    rate = {"rate": 400} if request.param == "lighttpd" else {}
    with SERVERS[request.param](tmp_path / "run-of-server", root=root, **rate) as server:
        made = Site(server=server, root=root)
        made.put("m.bin", SLOW)
        yield made


def outage(
    site: Site, node: FakeNode, *, way: str = "whole", meanwhile: Callable[[], None] = lambda: None
) -> Mapping[str, object]:
    """Fetch SLOW from a server that is killed in the middle and started again; what the state says of it then."""
    entry = node.entry("m", site.server.url("/slow/m.bin"), SLOW)
    entry = chunked(entry, SLOW) if way == "chunks" else entry
    file = node.folder / "fetch.yaml"
    retry = {"attempts_without_progress": 50, "base": "20ms", "max": "100ms"}
    file.write_text(node.config(entry, defaults={"retry": retry}, parallel=1))
    with node.start("run", "--config", str(file)) as process:
        try:
            waiting.until(lambda: sum(ports.taken(site.server.port)) > len(SLOW) / 4)
            site.server.kill()
            meanwhile()
            waiting.until(lambda: "refused the connection" in str(node.state()))
        finally:
            site.server.start()
        _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.DONE, err
    assert (node.out / "m").read_bytes() == SLOW
    artifacts = node.state()["artifacts"]
    assert isinstance(artifacts, list)
    told: Mapping[str, object] = artifacts[0]
    return told


@pytest.mark.parametrize("way", ["whole", "chunks"])
def test_a_server_that_ends_in_the_middle_and_comes_back_is_resumed(way: str, slow: Site, node: FakeNode) -> None:
    assert outage(slow, node, way=way)["bytes_received"] == len(SLOW)


def test_a_file_that_changes_meanwhile_is_begun_again_at_once(slow: Site, node: FakeNode) -> None:
    slow.put("m.bin", OTHER[: len(SLOW)])
    told = outage(slow, node, meanwhile=lambda: slow.put("m.bin", SLOW, at=LONG_AGO + 5))
    received = told["bytes_received"]
    assert isinstance(received, int)
    assert len(SLOW) < received < 2 * len(SLOW)
