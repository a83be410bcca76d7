"""Where what is secret goes: to the servers it is for, and into no message."""

from __future__ import annotations

import hashlib
import random
import re
import ssl
from base64 import b64encode

import pytest

from fakes.certs import Authority
from fakes.exchange import Fault
from fakes.faults import Flip, Status, redirect
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.tunnel import Tunnel

BODY = random.Random(1).randbytes(20_000)
PASSWORD = "p@ss:w%rd/é"  # noqa: S105
LOGIN = f"Basic {b64encode(f'joe:{PASSWORD}'.encode()).decode()}"


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


@pytest.mark.parametrize("text", ["s3cret", "joe:a\nb:c", ":s3cret", "joe:s3\x07cret", "", "joe:" + "s" * 2_000_000])
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


@pytest.fixture
def token(node: FakeNode) -> str:
    node.credential("pxe-fetch.token", "Authorization: Bearer s3cret\n")
    return "pxe-fetch.token"


def test_a_credential_is_not_sent_unencrypted_and_the_key_that_would_is_shown(node: FakeNode, token: str) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, header_credential=token))
        assert server.asked == []
    assert (ran.code, ran.state["cause"]) == (65, "credential-unencrypted")
    assert f"  url: {server.url('/m')}\n" in ran.err
    assert "insecure: true" in ran.err


def test_check_refuses_a_credential_by_http_also_from_defaults(node: FakeNode) -> None:
    entries = [node.entry("a", "m", BODY), node.entry("b", "http://h/m", BODY, insecure=True)]
    entries += [node.entry(scheme, f"{scheme}://h/m", BODY) for scheme in ("https", "ftp", "tftp")]
    defaults = {"base_url": "http://h/", "header_credential": "pxe-fetch.token"}
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(*entries, defaults=defaults))
    ran = node.run("check", str(file))
    assert ran.code == 65
    assert ran.err.count("error[credential-unencrypted]: artifacts[0]") == 1
    assert not re.search(r"artifacts\[[1-9]", ran.err)


def test_a_url_that_this_node_makes_unencrypted_is_refused(node: FakeNode, token: str) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        node.boot_with(f"scheme=http pxe-fetch.base_url={server.url('/')}")
        by_base = node.run_config(node.entry("m", "m", BODY, header_credential=token))
        there = server.url("/m").replace("http:", "${cmdline.scheme}:")
        by_fact = node.run_config(node.entry("m", there, BODY, header_credential=token))
        allowed = node.run_config(node.entry("m", "m", BODY, header_credential=token, insecure=True))
        assert [asked.fields.get("authorization") for asked in server.asked] == ["Bearer s3cret"]
    assert (by_base.code, by_fact.code, allowed.code) == (77, 77, 0)
    assert "would be sent unencrypted to http://127.0.0.1" in by_base.out


def test_a_list_on_another_server_gets_neither_headers_nor_credentials(node: FakeNode, token: str) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    sums, chunks = f"{digest}  m\n".encode(), f"{digest}\n".encode()
    own = {"/m": Script(body=BODY), "/SUMS": Script(body=sums), "/m.chunks": Script(body=chunks)}
    secret = {"header_credential": token, "headers": {"X-Site": "lab"}, "insecure": True}
    with Server(own) as server, Server(own) as other:
        for number, lists in enumerate((server, other)):
            dest = {"dest": str(node.out / str(number)), "url": server.url("/m")}
            listed = {"size": 1 << 20, "url": lists.url("/m.chunks"), "sha256": hashlib.sha256(chunks).hexdigest()}
            ran = node.run_config(
                {"name": "m", "sha256_url": lists.url("/SUMS"), **dest, **secret},
                {
                    "name": "n",
                    "size": len(BODY),
                    "chunks": listed,
                    **dest,
                    "dest": str(node.out / f"n{number}"),
                    **secret,
                },
            )
            assert ran.code == 0
        assert {"/SUMS", "/m.chunks", "/m"} == {asked.path for asked in server.asked}
        assert all(asked.fields["authorization"] == "Bearer s3cret" for asked in server.asked)
        assert {"/SUMS", "/m.chunks"} == {asked.path for asked in other.asked}
        assert not any(name in asked.fields for asked in other.asked for name in ("authorization", "x-site"))


SAS = "sv=2024-11-04&sp=r&sig=s3cret%2B%2F%3D"


@pytest.fixture
def sas(node: FakeNode) -> str:
    node.credential("pxe-fetch.sas", f"?{SAS}\r\n")  # as a portal shows it, in a file of Windows
    return "pxe-fetch.sas"


def _everything(node: FakeNode) -> str:
    """The names and contents of all files of the node, but for its credentials."""
    files = [one for one in node.folder.rglob("*") if one.is_file() and one.parent.name != "credentials"]
    return "".join(f"{one}\n{one.read_bytes()!r}\n" for one in files)


def test_a_query_credential_goes_to_all_mirrors_behind_what_the_url_has_and_is_shown_nowhere(
    node: FakeNode, sas: str
) -> None:
    faults: list[Fault] = [Status(503), Flip(at=0.5)]
    scripts = {"/m": Script(body=BODY, faults=faults), "/r": Script()}
    with Server(scripts) as one, Server(scripts) as two:
        urls = [one.url("/m"), two.url("/m?comp=block")]
        entry = {**node.entry("m", "", BODY, query_credential=sas, insecure=True), "urls": urls}
        del entry["url"]
        ran = node.run_config(entry, defaults={"retry": {"base": "1ms", "max": "5ms"}}, report={"url": one.url("/r")})
        assert {asked.path for asked in one.asked if asked.method == "GET"} == {f"/m?{SAS}"}
        assert {asked.path for asked in two.asked} == {f"/m?comp=block&{SAS}"}
        assert all("s3cret" not in asked.body.decode() for asked in one.asked_for("/r"))
    assert ran.code == 0
    assert "s3cret" not in ran.out + ran.err + _everything(node)


@pytest.mark.parametrize("fault", [Status(403), Status(404), Status(503), redirect("ftp://h/m")])
def test_an_error_of_a_request_with_a_query_credential_does_not_show_it(node: FakeNode, sas: str, fault: Fault) -> None:
    with Server({"/m": Script(faults=[fault] * 50)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, query_credential=sas, insecure=True))
        assert server.asked[0].path == f"/m?{SAS}"
    assert ran.code != 0
    assert "s3cret" not in ran.out + ran.err + _everything(node)


def test_no_redirect_takes_a_query_credential_along(node: FakeNode, sas: str) -> None:
    with Server({"/m": Script(body=BODY)}) as other, Server({"/own": Script(body=BODY)}) as server:
        server.scripts["/m"] = Script(faults=[redirect(other.url("/m"))])
        server.scripts["/n"] = Script(faults=[redirect("/own")])
        secret = {"query_credential": sas, "insecure": True}
        ran = node.run_config(*(node.entry(name, server.url(f"/{name}"), BODY, **secret) for name in ("m", "n")))
        assert [asked.path for asked in other.asked] == ["/m"]
        assert [asked.path for asked in server.asked_for("/own")] == ["/own"]
    assert ran.code == 0


def test_a_list_gets_the_query_credential_on_a_server_of_the_artifact_alone(node: FakeNode, sas: str) -> None:
    sums = f"{hashlib.sha256(BODY).hexdigest()}  m\n".encode()
    own = {"/m": Script(body=BODY), "/SUMS": Script(body=sums)}
    with Server(own) as server, Server(own) as other:
        for number, lists in enumerate((server, other)):
            entry = {"name": "m", "url": server.url("/m"), "sha256_url": lists.url("/SUMS")}
            dest = str(node.out / str(number))
            assert node.run_config({**entry, "dest": dest, "query_credential": sas, "insecure": True}).code == 0
        assert {asked.path for asked in server.asked} == {f"/m?{SAS}", f"/SUMS?{SAS}"}
        assert {asked.path for asked in other.asked} == {"/SUMS"}


def test_a_query_credential_is_not_sent_unencrypted(node: FakeNode, sas: str) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        static = node.run_config(node.entry("m", server.url("/m"), BODY, query_credential=sas))
        node.boot_with(f"pxe-fetch.base_url={server.url('/')}")
        of_node = node.run_config(node.entry("m", "m", BODY, query_credential=sas))
        assert server.asked == []
    assert (static.code, static.state["cause"]) == (65, "credential-unencrypted")
    assert (of_node.code, of_node.state["cause"]) == (77, "policy")
    assert "the credential pxe-fetch.sas would be sent unencrypted" in of_node.out


@pytest.mark.parametrize(
    "text", ["", "?", "sig=s3cret value", "sig=s3cret\nX: y", "sig=s3cret#part", "sig=\u00e9s3cret"]
)
def test_a_query_credential_that_is_no_query_is_65_and_shown_nowhere(node: FakeNode, text: str) -> None:
    node.credential("pxe-fetch.sas", text)
    ran = node.run_config(node.entry("m", "https://h/m", BODY, query_credential="pxe-fetch.sas"))
    assert (ran.code, ran.state["cause"]) == (65, "credential-invalid")
    assert "s3cret" not in ran.out + ran.err + node.state_file.read_text()


def test_a_missing_query_credential_is_65_and_names_the_key(node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", "https://h/m", BODY, query_credential="pxe-fetch.sas"))
    assert (ran.code, ran.state["cause"]) == (65, "credential-missing")
    assert "pxe-fetch.sas (query_credential)" in ran.err


def test_the_reports_credentials_go_with_it_to_the_url_of_the_configuration_alone(
    node: FakeNode, sas: str, token: str
) -> None:
    secret = {"header_credential": token, "query_credential": sas, "insecure": True}
    with Server({"/r": Script(), "/theirs": Script()}) as server:
        ran = node.run_config(report={"url": server.url("/r"), **secret})
        assert ran.code == 0
        asked = server.asked[-1]  # the final report
        assert (asked.path, asked.fields["authorization"]) == (f"/r?{SAS}", "Bearer s3cret")
        assert asked.fields["content-type"] == "application/json"
        node.boot_with(f"pxe-fetch.report={server.url('/theirs')}")
        node.run_config(report={"url": server.url("/r"), **secret})
        assert [asked.path for asked in server.asked_for("/theirs")] == ["/theirs"]
        assert "authorization" not in server.asked_for("/theirs")[-1].fields
    assert "s3cret" not in ran.out + ran.err + _everything(node)


def test_a_credential_of_the_image_is_used_unless_the_unit_has_one_of_that_name(node: FakeNode) -> None:
    node.write("etc/pxe-fetch/credentials/pxe-fetch.report", "Authorization: Bearer packed\n")
    with Server({"/r": Script()}) as server:
        report = {"url": server.url("/r"), "header_credential": "pxe-fetch.report", "insecure": True}
        for sent in ("packed", "s3cret"):
            assert node.run_config(report=report).code == 0
            assert server.asked[-1].fields["authorization"] == f"Bearer {sent}"
            node.credential("pxe-fetch.report", "Authorization: Bearer s3cret\n")


def test_a_report_is_not_sent_unencrypted_with_a_credential(node: FakeNode, token: str) -> None:
    with Server({"/r": Script()}) as server:
        ran = node.run_config(report={"url": server.url("/r"), "header_credential": token})
        assert server.asked == []
    assert (ran.code, ran.state["cause"]) == (65, "credential-unencrypted")
    assert "report would send the credential pxe-fetch.token unencrypted" in ran.err


def test_a_report_whose_credential_is_missing_is_a_remark_and_no_failure(node: FakeNode) -> None:
    with Server({"/r": Script()}) as server:
        report = {"url": server.url("/r"), "header_credential": "pxe-fetch.token", "insecure": True}
        ran = node.run_config(report=report)
        assert server.asked == []
    assert ran.code == 0
    assert "reporting to no URL: the credential pxe-fetch.token (header_credential) is missing" in ran.err


def test_credentials_are_sent_by_https_without_insecure(
    node: FakeNode, sas: str, token: str, localhost: ssl.SSLContext, authority: Authority
) -> None:
    secret = {"query_credential": sas, "header_credential": token}
    with Server({"/m": Script(body=BODY), "/r": Script()}, tls=localhost) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, **secret),
            report={"url": server.url("/r"), **secret},
            tls={"ca_file": str(authority.certificate)},
        )
        assert {asked.path for asked in server.asked} == {f"/m?{SAS}", f"/r?{SAS}"}
        assert {asked.fields["authorization"] for asked in server.asked} == {"Bearer s3cret"}
    assert ran.code == 0


def test_what_is_wrong_with_a_credential_is_told_with_the_place_of_its_file(node: FakeNode) -> None:
    name, entry = (
        "pxe-fetch.token",
        node.entry("m", "https://site.example/m", BODY, header_credential="pxe-fetch.token"),
    )
    file = f"/etc/pxe-fetch/credentials/{name}"
    missing = node.run_config(entry)
    assert f"ImportCredential=, SMBIOS type 11), or add the file {file} to the image" in missing.err
    node.write(file, "no field\n")
    assert f"correct the file {file} in the image" in node.run_config(entry).err
    (node.root / file.lstrip("/")).unlink()
    (node.root / file.lstrip("/")).mkdir()
    unreadable = node.run_config(entry)
    assert (unreadable.code, unreadable.state["cause"]) == (65, "credential-invalid")
    assert f"correct the file {file} in the image" in unreadable.err
    node.credential(name, "no field\n")
    assert file not in node.run_config(entry).err
