"""Where what is secret goes: to the servers it is for, and into no message."""

from __future__ import annotations

import random
import ssl
from base64 import b64encode

import pytest

from fakes.certs import Authority
from fakes.faults import Status
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.tunnel import Tunnel

BODY = random.Random(1).randbytes(20_000)
PASSWORD = "p@ss:w%rd/é"  # noqa: S105
LOGIN = f"Basic {b64encode(f'joe:{PASSWORD}'.encode()).decode()}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "site")


@pytest.fixture(scope="module")
def localhost(authority: Authority) -> ssl.SSLContext:
    issued = authority.issue("localhost", alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def test_the_proxys_password_goes_to_the_proxy_of_http_alone(node: FakeNode) -> None:
    node.credential("pxe-fetch.proxy", f"joe:{PASSWORD}\n")
    with Server({"/m": Script(body=BODY, faults=[Status(503)])}) as server, Server({"/d": Script(body=BODY)}) as direct:
        proxy = {"http": server.url(""), "no_proxy": ["127.0.0.1"], "credential": "pxe-fetch.proxy"}
        ran = node.run_config(
            node.entry("m", "http://site.example/m", BODY), node.entry("d", direct.url("/d"), BODY), proxy=proxy
        )
        assert {asked.fields.get("proxy-authorization") for asked in server.asked} == {LOGIN}
        assert all("proxy-authorization" not in asked.fields for asked in direct.asked)
    assert ran.code == 0
    assert "p@ss" not in ran.out + ran.err + node.state_file.read_text()
    assert "p%40ss" not in ran.out + ran.err + node.state_file.read_text()


def test_the_proxys_password_goes_with_connect_and_not_to_the_server_behind_it(
    node: FakeNode, localhost: ssl.SSLContext, authority: Authority
) -> None:
    node.credential("pxe-fetch.proxy", f"joe:{PASSWORD}")
    with Tunnel() as tunnel, Server({"/m": Script(body=BODY)}, tls=localhost) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m").replace("127.0.0.1", "localhost"), BODY),
            proxy={"https": tunnel.url, "credential": "pxe-fetch.proxy"},
            tls={"ca_file": str(authority.certificate)},
        )
        assert all("proxy-authorization" not in asked.fields for asked in server.asked)
    assert ran.code == 0
    assert f"proxy-authorization: {LOGIN}".lower() in tunnel.asked[0].lower()


@pytest.mark.parametrize("text", ["s3cret", "joe:a\nb:c", ":s3cret", "joe:s3\x07cret", ""])
def test_a_proxys_credential_that_is_no_login_is_65_and_shown_nowhere(node: FakeNode, text: str) -> None:
    node.credential("pxe-fetch.proxy", text)
    proxy = {"http": "http://127.0.0.1:1", "credential": "pxe-fetch.proxy"}
    ran = node.run_config(node.entry("m", "http://site.example/m", BODY), proxy=proxy)
    assert (ran.code, ran.state["cause"]) == (65, "credential-invalid")
    assert "user:password" in ran.err
    assert "cret" not in ran.out + ran.err + node.state_file.read_text()


def test_a_missing_credential_of_the_proxy_is_65_and_names_the_key(node: FakeNode) -> None:
    proxy = {"http": "http://127.0.0.1:1", "credential": "pxe-fetch.proxy"}
    ran = node.run_config(node.entry("m", "http://site.example/m", BODY), proxy=proxy)
    assert (ran.code, ran.state["cause"]) == (65, "credential-missing")
    assert "pxe-fetch.proxy (proxy.credential)" in ran.err
