"""Which configuration counts, and what is refused before anything is fetched."""

from __future__ import annotations

import hashlib
import random
import ssl

import pytest

from fakes.certs import Authority
from fakes.faults import Serve, Status, cut, unavailable
from fakes.node import FakeNode
from fakes.server import Script, Server

BODY = random.Random(1).randbytes(20_000)
ETC = "/etc/pxe-fetch/fetch.yaml"
USR = "/usr/lib/pxe-fetch/fetch.yaml"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def first_line(err: str) -> str:
    return err.splitlines()[0]


def test_order_is_command_line_then_credential_then_etc_then_usr(node: FakeNode) -> None:
    empty = node.config()
    node.write(USR, empty)
    ran = node.run("run")
    assert ran.state["config"] == {
        "source": "usr",
        "path_or_url": str(node.root / USR.lstrip("/")),
        "sha256": sha256(empty),
    }
    assert f"no {ETC}" in first_line(ran.err)

    node.write(ETC, empty)
    ran = node.run("run")
    assert str(node.root / ETC.lstrip("/")) in str(ran.state["config"])
    assert f"{USR} is ignored" in first_line(ran.err)

    node.credential("pxe-fetch.config", empty)
    ran = node.run("run")
    assert "'source': 'credential'" in str(ran.state["config"])
    assert f"{ETC} is ignored" in first_line(ran.err)

    (node.folder / "pinned.yaml").write_text(empty)
    node.boot_with(f"pxe-fetch.config=file://{node.folder}/pinned.yaml")
    ran = node.run("run")
    assert "'source': 'cmdline'" in str(ran.state["config"])
    assert "credential pxe-fetch.config is ignored" in first_line(ran.err)

    ran = node.run_config()
    assert "'source': 'file'" in str(ran.state["config"])
    assert ran.code == 0


def test_configuration_by_url_with_its_digest_is_used(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        text = node.config(node.entry("m", server.url("/m"), BODY))
        server.scripts["/site.yaml"] = Script(body=text.encode(), faults=[unavailable(), cut(0.5)])
        node.write(ETC, node.config(node.entry("other", server.url("/m"), BODY)))
        node.boot_with(f"pxe-fetch.config={server.url('/site.yaml')} pxe-fetch.config.sha256={sha256(text).upper()}")
        ran = node.run("run")
        assert len(server.asked_for("/site.yaml")) == 3
    assert ran.code == 0
    assert node.files() == ["m"]
    assert ran.state["config"] == {
        "source": "cmdline",
        "path_or_url": server.url("/site.yaml"),
        "sha256": sha256(text),
    }


def test_wrong_digest_is_refused_and_nothing_is_placed(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        text = node.config(node.entry("m", server.url("/m"), BODY))
        server.scripts["/site.yaml"] = Script(body=text.encode())
        node.write(ETC, text)
        node.boot_with(f"pxe-fetch.config={server.url('/site.yaml')} pxe-fetch.config.sha256={'0' * 64}")
        ran = node.run("run")
        assert not server.asked_for("/m")
    assert ran.code == 77
    assert ran.state["cause"] == "policy"
    assert sha256(text) in ran.out
    assert not node.out.exists()


def test_pinned_configuration_that_was_cut_short_unnoticed_is_asked_for_again(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        text = node.config(node.entry("m", server.url("/m"), BODY))
        server.scripts["/site.yaml"] = Script(body=text.encode(), faults=[cut(0.5, framing="close")])
        node.boot_with(f"pxe-fetch.config={server.url('/site.yaml')} pxe-fetch.config.sha256={sha256(text)}")
        ran = node.run("run")
        assert len(server.asked_for("/site.yaml")) == 2
    assert ran.code == 0
    assert node.files() == ["m"]


def tls_for(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """That of a server whose authority the node's own bundle has."""
    authority = Authority(node.folder / "ca")
    issued = authority.issue("localhost", alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    monkeypatch.setattr("pxe_fetch.transport.session.CA_BUNDLES", (str(authority.certificate),))
    return context


@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
def test_a_web_page_in_place_of_a_configuration_by_https_is_no_broken_configuration(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    page = Serve(body=b"\n<!DOCTYPE html><title>back soon</title>", fields={"Content-Type": kind})
    with Server(tls=tls_for(node, monkeypatch)) as secure:
        secure.scripts["/site.yaml"] = Script(body=node.config().encode(), faults=[page])
        node.boot_with(f"pxe-fetch.config={secure.url('/site.yaml')}")
        assert node.run("run").code == 0
        if kind == "text/plain":  # else there are ten attempts
            secure.scripts["/other.yaml"] = Script(then=page)
            node.boot_with(f"pxe-fetch.config={secure.url('/other.yaml')}")
            ran = node.run("run")
            assert ran.code == 76
            assert f"cannot fetch the configuration from {secure.url('/other.yaml')}: a web page came" in ran.out


def test_configuration_by_https_needs_no_digest_and_is_never_taken_in_part(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server({"/m": Script(body=BODY)}) as server, Server(tls=tls_for(node, monkeypatch)) as secure:
        entries = [node.entry(name, server.url("/m"), BODY) for name in ("m", "n")]
        text = node.config(*entries)
        # As far as before the second artifact it is a configuration, too; the connection just ends there.
        short = cut(text.index("- name: n"), framing="close")
        secure.scripts["/site.yaml"] = Script(body=text.encode(), faults=[unavailable(), short])
        node.boot_with(f"pxe-fetch.config={secure.url('/site.yaml')}")
        ran = node.run("run")
        assert len(secure.asked_for("/site.yaml")) == 3
    assert ran.code == 0
    assert node.files() == ["m", "n"]


def test_plain_http_without_a_digest_is_refused_unasked(node: FakeNode) -> None:
    with Server({"/site.yaml": Script(body=node.config().encode())}) as server:
        node.boot_with(f"pxe-fetch.config={server.url('/site.yaml')}")
        ran = node.run("run")
        assert not server.asked
    assert ran.code == 77
    assert "pxe-fetch.config.sha256=HEX" in ran.out


@pytest.mark.parametrize(
    "url", ["http://[::1/c.yaml", "file://[zz]/c.yaml", "https://h:port/c.yaml", "https:///c.yaml"]
)
def test_configuration_from_what_is_no_url_is_refused(node: FakeNode, url: str) -> None:
    node.boot_with(f"pxe-fetch.config={url}")
    ran = node.run("run")
    assert ran.code == 77
    assert "Traceback" not in ran.err


def test_configuration_that_the_server_refuses_is_77_and_no_other_is_taken(node: FakeNode) -> None:
    with Server({"/site.yaml": Script(then=Status(403)), "/m": Script(body=BODY)}) as server:
        node.write(ETC, node.config(node.entry("m", server.url("/m"), BODY)))
        node.boot_with(f"pxe-fetch.config={server.url('/site.yaml')} pxe-fetch.config.sha256={'0' * 64}")
        ran = node.run("run")
    assert ran.code == 77
    assert ran.state["cause"] == "refused"
    assert ran.state["config"] == {}
    assert not node.out.exists()


def test_configuration_in_a_file_named_by_url_is_there_or_not_and_is_pinned_as_any_other(node: FakeNode) -> None:
    file = node.folder / "site.yaml"
    node.boot_with(f"pxe-fetch.config=file://{file} pxe-fetch.config.sha256={sha256(node.config())}")
    ran = node.run("run")
    assert (ran.code, ran.state["cause"]) == (65, "config-unreadable")
    assert f"{file} cannot be read: No such file or directory" in ran.out
    file.write_text(node.config())
    assert node.run("run").code == 0
    file.write_text(f"{node.config()}\n")
    assert node.run("run").code == 77
    file.unlink()
    file.mkdir()
    assert node.run("run").code == 65


def test_configuration_of_more_than_a_mebibyte_is_refused(node: FakeNode) -> None:
    text = node.config() + "#" * 1024 * 1024
    with Server({"/site.yaml": Script(body=text.encode())}) as server:
        node.boot_with(f"pxe-fetch.config={server.url('/site.yaml')} pxe-fetch.config.sha256={sha256(text)}")
        assert node.run("run").code == 77
    node.boot_with("quiet")
    node.write(ETC, text)
    assert node.run("run").code == 65


def test_every_problem_of_a_configuration_is_shown_at_once_and_65(node: FakeNode) -> None:
    node.write(ETC, "version: 1\nartifacts:\n  - name: a b\n    url: http://h/x\n    sha256: beef\n    dest: /etc/x\n")
    ran = node.run("run")
    assert ran.code == 65
    assert f"  --> {node.root}{ETC}:5:13" in ran.err
    assert "error[name-invalid]" in ran.err
    assert "error[checksum-invalid]" in ran.err
    assert "error[dest-outside-roots]" in ran.err
    assert "Traceback" not in ran.err
    assert "(and 2 more problems)" in ran.out
    assert ran.state["cause"] == "name-invalid"


def test_local_file_of_the_packing_machine_is_65_with_a_hint(node: FakeNode) -> None:
    ran = node.run_config({"name": "m", "source": "files/m.bin", "dest": str(node.out / "m")})
    assert ran.code == 65
    assert ran.state["cause"] == "source-unresolved"
    assert "pxe-pack turns it into a url" in ran.err


@pytest.mark.parametrize("arguments", ["pxe-fetch.deadline=soon", "pxe-fetch.confg=http://x/", "pxe-fetch=maybe"])
def test_wrong_kernel_argument_is_65_and_named(node: FakeNode, arguments: str) -> None:
    node.boot_with(arguments)
    ran = node.run("run")
    assert ran.code == 65
    assert arguments.partition("=")[0] in ran.out


def test_base_url_of_the_command_line_comes_first(node: FakeNode) -> None:
    with Server({"/there/m": Script(body=BODY)}) as server:
        node.boot_with(f"pxe-fetch.base_url={server.url('/there')}")
        ran = node.run_config(
            node.entry("m", "m", BODY), defaults={"base_url": "http://127.0.0.1:1/", "retry": {"base": "1ms"}}
        )
    assert ran.code == 0


def test_what_was_exported_is_fetched_from_where_the_command_line_says(node: FakeNode) -> None:
    """And what has another url stays where it is."""
    packed = "http://127.0.0.1:1/files/"
    with Server({"/there/m%23": Script(body=BODY), "/files/other": Script(body=BODY)}) as server:
        node.boot_with(f"pxe-fetch.artifact_url={server.url('/there')}")
        entries = [node.entry("m", f"{packed}m%23", BODY), node.entry("o", server.url("/files/other"), BODY)]
        theirs = node.entry("theirs", f"{packed}theirs", BODY, when={"arch": "none"})
        ran = node.run_config(*entries, theirs, artifact_url=packed)
    assert ran.code == 0, ran.out
    assert ran.artifact("theirs")["phase"] == "skipped"


@pytest.mark.parametrize("argument", ["base_url", "artifact_url"])
@pytest.mark.parametrize("url", ["mirror.lan", "gopher://h/", "http://", "http://joe:s3cret@h/"])
def test_kernel_argument_that_is_no_url_is_65_and_named(node: FakeNode, argument: str, url: str) -> None:
    node.boot_with(f"pxe-fetch.{argument}={url}")
    ran = node.run_config(node.entry("m", "m", BODY), artifact_url="http://h/a/")
    assert ran.code == 65
    assert f"pxe-fetch.{argument}=" in ran.out
    assert "s3cret" not in ran.out + ran.err


def test_relative_url_without_a_base_is_65(node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", "m", BODY))
    assert ran.code == 65
    assert ran.state["cause"] == "base-url-missing"


def test_nothing_to_do_is_0(node: FakeNode) -> None:
    ran = node.run("run")
    assert ran.code == 0
    assert "no configuration found" in ran.out
    assert ran.state["phase"] == "done"


def test_switched_off_is_0_and_fetches_nothing(node: FakeNode) -> None:
    node.write(ETC, "not: [valid")
    node.boot_with("quiet pxe_fetch=off")
    ran = node.run("run")
    assert ran.code == 0
    assert "switched off" in ran.out
