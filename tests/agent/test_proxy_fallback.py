"""`proxy: {fallback: direct}`: servers are asked without a proxy that fails, and it is tried again later."""

from __future__ import annotations

import random
import ssl
import time
from pathlib import Path

import pytest

from fakes import layers, ports
from fakes.certs import Authority
from fakes.exchange import Fault
from fakes.faults import Hang, Serve, Status
from fakes.haproxy import haproxy
from fakes.node import FakeNode
from fakes.registry import PASSWORD, USER
from fakes.server import Script, Server
from fakes.squid import squid
from pxe_fetch.transport import session

BODY = random.Random(162).randbytes(100_000)
CREDENTIAL = "pxe-fetch.proxy"
DIRECTLY = "asked directly; the proxy is tried again in 60 s"


def proxied(url: str, **more: str) -> dict[str, object]:
    return {"proxy": {"http": url, "https": url, "fallback": "direct", **more}}


def test_a_proxy_that_does_not_listen_is_left_out_for_the_run(node: FakeNode) -> None:
    port = ports.free()
    with Server({"/m": Script(body=BODY)}) as origin:
        entries = [node.entry(f"m{number}", origin.url("/m"), BODY) for number in range(4)]
        ran = node.run_config(*entries, **proxied(f"http://127.0.0.1:{port}"), parallel=1)
    assert ran.code == 0, ran.err
    assert ran.err.count(f"the proxy 127.0.0.1:{port} refused the connection: servers are {DIRECTLY}") == 1
    assert all(ran.artifact(f"m{number}")["attempts"] == 1 for number in range(4))


def test_a_proxy_that_does_not_connect_is_left_out_for_https(
    node: FakeNode, authority: Authority, localhost: ssl.SSLContext, tmp_path: Path
) -> None:
    with (
        haproxy(tmp_path / "haproxy", backends=[]) as proxy,
        Server({"/m": Script(body=BODY)}, tls=localhost) as origin,
    ):
        tls = {"ca_file": str(authority.certificate)}
        entries = [node.entry(f"m{number}", origin.url("/m"), BODY) for number in range(3)]
        ran = node.run_config(*entries, **proxied(proxy.url("")), tls=tls, parallel=1)
        assert ran.code == 0, ran.err
        assert [line.split()[0] for line in proxy.requests()].count("CONNECT") == 1
        assert ran.err.count(DIRECTLY) == 1
        assert f"the proxy 127.0.0.1:{proxy.port} did not connect to localhost:{origin.port}" in ran.err


@pytest.mark.parametrize("fault", [Status(502), Status(503), Status(504), Hang()], ids=["502", "503", "504", "silent"])
def test_a_proxy_that_has_no_answer_to_pass_on_is_left_out(fault: Fault, node: FakeNode) -> None:
    node.credential(CREDENTIAL, "node:secret\n")
    with Server({"/m": Script(then=fault)}) as proxy, Server({"/m": Script(body=BODY)}) as origin:
        entries = [node.entry(f"m{number}", origin.url("/m"), BODY) for number in range(3)]
        sections = proxied(proxy.url(""), credential=CREDENTIAL)
        ran = node.run_config(*entries, **sections, parallel=1, defaults={"timeouts": {"read": "500ms"}})
        assert ran.code == 0, ran.err
        assert len(proxy.asked) == 1
        assert len(origin.asked) == 3
        assert "proxy-authorization" in proxy.asked[0].fields
        assert not any("proxy-authorization" in asked.fields for asked in origin.asked)
        assert ran.err.count(DIRECTLY) == 1


def test_a_proxy_is_not_left_out_for_what_its_server_answers(node: FakeNode, tmp_path: Path) -> None:
    with (
        squid(tmp_path / "squid") as proxy,
        Server({"/m": Script(body=BODY, faults=[Status(503), Status(503)])}) as origin,
    ):
        ran = node.run_config(node.entry("m", origin.url("/m"), BODY), **proxied(proxy.url("")))
        assert ran.code == 0, ran.err
        assert DIRECTLY not in ran.err
        assert "m: attempt 1 at" in ran.err
        assert [line.split()[0] for line in proxy.requests()].count("GET") == 2
        assert len(origin.asked) == 3  # the second of them directly


@pytest.mark.parametrize("code", [403, 404, 407])
def test_what_a_proxy_refuses_is_not_asked_for_directly(code: int, node: FakeNode) -> None:
    with Server({"/m": Script(then=Status(code))}) as proxy, Server({"/m": Script(body=BODY)}) as origin:
        ran = node.run_config(node.entry("m", origin.url("/m"), BODY), **proxied(proxy.url("")))
        assert ran.code == (69 if code == 404 else 77)
        assert not origin.asked


def test_a_proxy_that_works_again_is_used_again(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_LEFT_OUT", 0.3)
    paths = [f"/{number}" for number in range(8)]
    slow = {path: Script(body=b"", then=_Slow(body=path.encode())) for path in paths}
    with Server({**slow, "/0": Script(then=Status(503))}) as proxy, Server(slow) as origin:
        entries = [node.entry(f"m{path[1:]}", origin.url(path), path.encode()) for path in paths]
        ran = node.run_config(*entries, **proxied(proxy.url("")), parallel=1)
        assert ran.code == 0, ran.err
        by_proxy, directly = {asked.path for asked in proxy.asked}, {asked.path for asked in origin.asked}
    assert {"/0", "/1"} <= directly
    assert origin.url("/7") in by_proxy
    assert "/7" not in directly


class _Slow(Serve):
    def answer(self, exchange: object) -> None:
        time.sleep(0.1)
        super().answer(exchange)  # type: ignore[arg-type]


def test_a_server_that_fails_both_ways_is_told_with_both_reasons(node: FakeNode) -> None:
    port, nobody = ports.free(), ports.free()
    ran = node.run_config(node.entry("m", f"http://127.0.0.1:{nobody}/m", BODY), **proxied(f"http://127.0.0.1:{port}"))
    assert ran.code == 69
    why = f"127.0.0.1:{nobody} refused the connection; before that, the proxy 127.0.0.1:{port} refused the connection"
    assert why in ran.err
    assert DIRECTLY not in ran.err


@pytest.mark.parametrize("code", [403, 404, 451])
def test_a_firewall_that_refuses_the_direct_request_is_not_believed(code: int, node: FakeNode) -> None:
    with (
        Server({"/m": Script(faults=[Status(503)], body=BODY)}) as proxy,
        Server({"/m": Script(then=Status(code))}) as origin,
    ):
        ran = node.run_config(node.entry("m", origin.url("/m"), BODY), **proxied(proxy.url("")))
        assert ran.code == 0, ran.err
        assert (len(proxy.asked), len(origin.asked)) == (2, 1)
        said = f"asked without the proxy, the server, or a firewall, answered {code}"
        assert f"{said}; before that, the proxy 127.0.0.1:{proxy.port}, or a server behind it, answered 503" in ran.err
        assert DIRECTLY not in ran.err


def test_an_untrusted_certificate_on_the_direct_path_is_not_believed(
    node: FakeNode, localhost: ssl.SSLContext, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with (
        haproxy(tmp_path / "haproxy", backends=[]) as proxy,
        Server({"/m": Script(body=BODY)}, tls=localhost) as origin,
    ):
        tls = {"ca_file": str(other.certificate)}
        ran = node.run_config(node.entry("m", origin.url("/m"), BODY), **proxied(proxy.url("")), tls=tls)
    assert (ran.code, ran.state["cause"]) == (69, "network")
    assert "asked without the proxy" in ran.err
    assert "is not trusted" in ran.err


@pytest.mark.parametrize("fault", [Status(503), Hang()], ids=["503", "silent"])
def test_a_proxy_is_left_out_for_the_server_alone_that_it_cannot_reach(fault: Fault, node: FakeNode) -> None:
    outside = f"http://127.0.0.1:{ports.free()}/outside"  # nothing but the proxy reaches it
    scripts = {"/inside": Script(then=fault), "/outside": Script(body=BODY)}
    with Server(scripts) as proxy, Server({"/inside": Script(body=BODY)}) as origin:
        entries = [node.entry("inside", origin.url("/inside"), BODY), node.entry("outside", outside, BODY)]
        timeouts = {"timeouts": {"read": "500ms"}, "retry": {"attempts_without_progress": 1}}
        ran = node.run_config(*entries, **proxied(proxy.url("")), parallel=1, defaults=timeouts)
        assert ran.code == 0, ran.err
        assert f"127.0.0.1:{origin.port} is {DIRECTLY}" in ran.err
        assert ran.artifact("outside")["attempts"] == 1


def test_a_registry_asks_for_a_login_on_the_direct_path_too(node: FakeNode) -> None:
    node.credential(layers.CREDENTIAL, f"{USER}:{PASSWORD}")
    wanted = Status(401, {"WWW-Authenticate": 'Basic realm="site"'})
    guarded = {
        path: Script(body=script.body, faults=[wanted] if "manifests" in path else [])
        for path, script in layers.scripts(layers.PLAIN, layers.BODY).items()
    }
    with Server(guarded) as registry:
        entry = layers.entry(node, layers.at(registry, layers.PLAIN), **layers.LOGS_IN)
        ran = node.run_config(entry, **proxied(f"http://127.0.0.1:{ports.free()}"))
    assert ran.code == 0, ran.err
