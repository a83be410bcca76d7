"""Through a real Squid, by http and by CONNECT, with and without a password, and behind HAProxy whose servers fail."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import ports
from fakes.apache import apache
from fakes.certs import Authority
from fakes.haproxy import haproxy
from fakes.lighttpd import lighttpd
from fakes.node import FakeNode
from fakes.process import WebServer
from fakes.squid import squid
from pxe_fetch.contract.commands import Exit

BODY = random.Random(74).randbytes(700_000)
HERE = 123_456
USER, PASSWORD = "node-1", "pa:ss word\u00e9"
CREDENTIAL = "pxe-fetch.proxy"
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "m.bin").write_bytes(BODY)
    return folder


@pytest.fixture(scope="module")
def origin(authority: Authority, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    certificate = authority.issue("localhost", alternative="DNS:localhost")
    with apache(
        tmp_path_factory.mktemp("apache") / "run",
        root=root,
        certificate=certificate,
        clients_of=authority.certificate,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def closed_port() -> int:
    """A port to which the proxies connect nobody."""
    return ports.free()


@pytest.fixture(scope="module")
def proxy(closed_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with squid(tmp_path_factory.mktemp("squid") / "run", forbidden=closed_port) as server:
        yield server


@pytest.fixture(scope="module")
def strict_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One that serves those with a password."""
    with squid(tmp_path_factory.mktemp("squid") / "run", user=(USER, PASSWORD)) as server:
        yield server


def through(proxy: WebServer, authority: Authority, **more: str) -> dict[str, object]:
    """The sections of the configuration."""
    where = proxy.url("")
    return {"proxy": {"http": where, "https": where, **more}, "tls": {"ca_file": str(authority.certificate)}}


def url(server: WebServer, scheme: str, path: str = "/m.bin") -> str:
    return server.secure_url(path) if scheme == "https" else server.url(path)


@SCHEMES
def test_fetches_and_resumes_through_a_proxy(
    scheme: str, origin: WebServer, proxy: WebServer, authority: Authority, node: FakeNode
) -> None:
    node.out.mkdir()
    (node.out / ".m.pxe-fetch-part").write_bytes(BODY[:HERE])
    ran = node.run_config(node.entry("m", url(origin, scheme), BODY), **through(proxy, authority))
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["bytes_received"] == len(BODY) - HERE
    asked = {"http": f"GET {origin.url('/m.bin')} 206 -", "https": f"CONNECT localhost:{origin.secure_port} 200 -"}
    assert asked[scheme] in proxy.requests()


@SCHEMES
def test_a_proxy_that_wants_a_password_is_told_with_the_key_to_set(
    scheme: str, origin: WebServer, strict_proxy: WebServer, authority: Authority, node: FakeNode
) -> None:
    ran = node.run_config(node.entry("m", url(origin, scheme), BODY), **through(strict_proxy, authority))
    assert ran.code == Exit.REFUSED, ran.err
    assert f"the proxy 127.0.0.1:{strict_proxy.port}" in ran.err
    assert "407" in ran.err
    assert "proxy.credential" in ran.err
    assert ran.artifact("m")["attempts"] == 1


@SCHEMES
def test_the_password_of_a_proxy_goes_to_the_proxy_and_is_shown_nowhere(
    scheme: str, origin: WebServer, strict_proxy: WebServer, authority: Authority, node: FakeNode
) -> None:
    node.credential(CREDENTIAL, f"{USER}:{PASSWORD}\n")
    sections = through(strict_proxy, authority, credential=CREDENTIAL)
    ran = node.run_config(node.entry("m", url(origin, scheme), BODY), **sections)
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert PASSWORD not in ran.err + ran.out + node.state_file.read_text()
    asked = {
        "http": f"GET {origin.url('/m.bin')} 200 {USER}",
        "https": f"CONNECT localhost:{origin.secure_port} 200 {USER}",
    }
    assert asked[scheme] in strict_proxy.requests()


@SCHEMES
def test_a_wrong_password_of_a_proxy_is_refused_for_good(
    scheme: str, origin: WebServer, strict_proxy: WebServer, authority: Authority, node: FakeNode
) -> None:
    node.credential(CREDENTIAL, f"{USER}:wrong\n")
    sections = through(strict_proxy, authority, credential=CREDENTIAL)
    ran = node.run_config(node.entry("m", url(origin, scheme), BODY), **sections)
    assert ran.code == Exit.REFUSED, ran.err
    assert f"the proxy 127.0.0.1:{strict_proxy.port}" in ran.err
    assert "proxy.credential" in ran.err


@SCHEMES
def test_what_a_proxy_forbids_is_refused_for_good(
    scheme: str, closed_port: int, proxy: WebServer, authority: Authority, node: FakeNode
) -> None:
    host = "localhost" if scheme == "https" else "127.0.0.1"
    entry = node.entry("m", f"{scheme}://{host}:{closed_port}/m.bin", BODY)
    ran = node.run_config(entry, **through(proxy, authority))
    assert (ran.code, ran.state["cause"]) == (Exit.REFUSED, "refused")
    assert "403" in ran.err
    assert ran.artifact("m")["attempts"] == 1
    if scheme == "https":
        assert f"the proxy 127.0.0.1:{proxy.port}" in ran.err


@SCHEMES
def test_an_origin_that_the_proxy_cannot_reach_is_tried_again_and_told_as_the_proxys_answer(
    scheme: str, proxy: WebServer, authority: Authority, node: FakeNode
) -> None:
    host = "localhost" if scheme == "https" else "127.0.0.1"
    entry = node.entry("m", f"{scheme}://{host}:{ports.free()}/m.bin", BODY)
    ran = node.run_config(entry, **through(proxy, authority))
    assert (ran.code, ran.state["cause"]) == (Exit.NETWORK, "network")
    assert f"the proxy 127.0.0.1:{proxy.port}" in ran.err
    assert "503" in ran.err
    assert ran.artifact("m")["attempts"] == 2


@SCHEMES
def test_a_proxy_that_does_not_listen_is_named(scheme: str, authority: Authority, node: FakeNode) -> None:
    port = ports.free()
    sections = {"proxy": {"http": f"http://127.0.0.1:{port}", "https": f"http://127.0.0.1:{port}"}}
    tls = {"tls": {"ca_file": str(authority.certificate)}}
    ran = node.run_config(node.entry("m", f"{scheme}://localhost/m.bin", BODY), **sections, **tls)
    assert ran.code == Exit.NETWORK
    assert f"127.0.0.1:{port}" in ran.err
    assert "refused the connection" in ran.err


def test_a_balancer_with_one_dead_server_of_two_delivers_all(root: Path, tmp_path: Path, node: FakeNode) -> None:
    """It tells every other request 503 until it has noticed: this one has no health checks, and never does."""
    with (
        apache(tmp_path / "apache", root=root) as one,
        lighttpd(tmp_path / "lighttpd", root=root) as other,
        haproxy(tmp_path / "haproxy", backends=[one.port, other.port]) as server,
    ):
        other.kill()
        entries = [node.entry(f"m{number}", server.url("/m.bin"), BODY) for number in range(6)]
        ran = node.run_config(*entries, defaults={"retry": {"base": "1ms", "max": "20ms"}})
        assert any(line.endswith(" 503 s1") for line in server.requests())
    assert ran.code == Exit.DONE, ran.err
    assert all((node.out / f"m{number}").read_bytes() == BODY for number in range(6))


def test_a_balancer_without_any_server_is_tried_again_and_the_mirror_beside_it_serves(
    origin: WebServer, tmp_path: Path, node: FakeNode
) -> None:
    with haproxy(tmp_path / "haproxy", backends=[]) as server:
        alone = node.run_config(node.entry("m", server.url("/absent/m.bin"), BODY))
        assert (alone.code, alone.state["cause"]) == (Exit.NETWORK, "network")
        assert "the server answered 503" in alone.err
        assert alone.artifact("m")["attempts"] == 2
        entry = dict(node.entry("m", "", BODY, urls=[server.url("/absent/m.bin"), origin.url("/m.bin")]))
        del entry["url"]
        ran = node.run_config(entry, defaults={"mirror_order": "listed"})
    assert ran.code == Exit.DONE, ran.err
    assert ran.artifact("m")["attempts"] == 2


def test_a_balancer_that_serves_one_at_a_time_is_waited_for(root: Path, tmp_path: Path, node: FakeNode) -> None:
    """503 after its queue's 0.2 s, while another stream of this node is served."""
    names = [f"m{number}" for number in range(4)]
    with (
        lighttpd(tmp_path / "lighttpd", root=root, rate=700) as one,
        haproxy(tmp_path / "haproxy", backends=[one.port]) as server,
    ):
        entries = [node.entry(name, server.url("/limited/m.bin"), BODY) for name in names]
        ran = node.run_config(*entries, defaults={"retry": {"base": "50ms", "max": "200ms"}})
    assert ran.code == Exit.DONE, ran.err
    assert all((node.out / name).read_bytes() == BODY for name in names)
