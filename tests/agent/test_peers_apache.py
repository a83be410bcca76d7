"""What a real Apache does beside sending files: client certificates for some files alone, gzip, passwords, refusals."""

from __future__ import annotations

import base64
import random
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fakes.apache import apache
from fakes.certs import Authority
from fakes.node import FakeNode, Ran
from fakes.process import WebServer
from pxe_fetch.contract.commands import Exit

BODY = random.Random(73).randbytes(600_000)
ALERTS = 3  # in a row are believed: anybody can have sent one
TEXT = BODY[:20_000].hex().encode()
USER, PASSWORD = "node", "s3cr3t-of-node"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "m.bin").write_bytes(BODY)
    (folder / "t.txt").write_bytes(TEXT)
    return folder


@pytest.fixture(scope="module", params=["-all +TLSv1.2", "-all +TLSv1.3"], ids=["TLS 1.2", "TLS 1.3"])
def secure(
    request: pytest.FixtureRequest, authority: Authority, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    certificate = authority.issue("localhost", alternative="DNS:localhost")
    with apache(
        tmp_path_factory.mktemp("apache") / "run",
        root=root,
        certificate=certificate,
        clients_of=authority.certificate,
        protocols=request.param,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
    ).stdout.strip()
    with apache(tmp_path_factory.mktemp("apache") / "run", root=root, passwords=f"{USER}:{hashed}\n") as server:
        yield server


def trusting(authority: Authority, *, name: str | None = None) -> Mapping[str, Mapping[str, str]]:
    """The section `tls` that trusts the site, with a certificate of the node's own for `name`."""
    tls = {"ca_file": str(authority.certificate)}
    if name:
        own = authority.issue(name)
        tls |= {"client_cert": str(own.certificate), "client_key": str(own.key)}
    return {"tls": tls}


def check_placed(ran: Ran, node: FakeNode, body: bytes = BODY) -> None:
    assert ran.code == Exit.DONE, ran.err
    assert (node.out / "m").read_bytes() == body


def test_fetches_by_https(secure: WebServer, authority: Authority, node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", secure.secure_url("/m.bin"), BODY), **trusting(authority))
    check_placed(ran, node)
    assert ran.artifact("m")["attempts"] == 1


def test_a_client_certificate_wanted_for_some_files_is_shown(
    secure: WebServer, authority: Authority, node: FakeNode
) -> None:
    """RFC 8446 4.2.6 and 4.6.2: asked for after the request; with TLS 1.2 by a renegotiation."""
    entry = node.entry("m", secure.secure_url("/clients/m.bin"), BODY)
    check_placed(node.run_config(entry, **trusting(authority, name="node-1")), node)


def test_a_client_certificate_wanted_and_not_given_is_final_and_says_which_keys_to_set(
    secure: WebServer, authority: Authority, node: FakeNode
) -> None:
    ran = node.run_config(node.entry("m", secure.secure_url("/clients/m.bin"), BODY), **trusting(authority))
    assert ran.code in {Exit.REFUSED, Exit.TRUST}, ran.err
    assert "client certificate" in ran.err
    assert "tls.client_cert" in ran.err
    assert ran.artifact("m")["attempts"] in range(1, ALERTS + 1)


def test_a_client_certificate_of_strangers_is_refused_for_good(
    secure: WebServer, authority: Authority, node: FakeNode
) -> None:
    stranger = trusting(Authority(node.folder / "stranger"), name="node-2")["tls"]
    tls = {**stranger, **trusting(authority)["tls"]}
    ran = node.run_config(node.entry("m", secure.secure_url("/clients/m.bin"), BODY), tls=tls)
    assert ran.code in {Exit.REFUSED, Exit.TRUST}, ran.err
    assert "client certificate" in ran.err
    assert ran.artifact("m")["attempts"] in range(1, ALERTS + 1)


@pytest.mark.parametrize("known", ["nothing", "size"])
def test_gzip_that_nobody_asked_for_is_named(known: str, plain: WebServer, node: FakeNode) -> None:
    more = {"size": len(TEXT)} if known == "size" else {}
    ran = node.run_config(node.entry("m", plain.url("/packed/t.txt"), TEXT, **more))
    assert ran.code in {Exit.INTEGRITY, Exit.NETWORK}, ran.err
    assert "Content-Encoding gzip" in ran.err
    assert node.files() == []


def test_what_the_compressed_body_has_for_digest_is_taken_as_it_comes(plain: WebServer, node: FakeNode) -> None:
    """The digest is of the bytes on the wire, whatever the header calls them."""
    packed = subprocess.run(
        ["curl", "--silent", "--fail", plain.url("/packed/t.txt")], check=True, capture_output=True
    ).stdout
    check_placed(node.run_config(node.entry("m", plain.url("/packed/t.txt"), packed)), node, packed)


@pytest.mark.parametrize(("path", "status"), [("/closed/m.bin", 403), ("/private/m.bin", 401)])
def test_a_refusal_is_final_and_told_with_its_status(path: str, status: int, plain: WebServer, node: FakeNode) -> None:
    ran = node.run_config(node.entry("m", plain.url(path), BODY))
    assert (ran.code, ran.state["cause"]) == (Exit.REFUSED, "refused")
    assert f"answered {status}" in ran.err
    assert ran.artifact("m")["attempts"] == 1


def test_a_secret_header_opens_what_wants_a_password_and_is_shown_nowhere(plain: WebServer, node: FakeNode) -> None:
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    node.credential("pxe-fetch.files", f"Authorization: Basic {token}\n")
    entry = node.entry("m", plain.url("/private/m.bin"), BODY, header_credential="pxe-fetch.files", insecure=True)
    ran = node.run_config(entry)
    check_placed(ran, node)
    assert token not in ran.err + ran.out + node.state_file.read_text()


def test_a_redirect_is_followed_and_what_was_here_is_kept(plain: WebServer, node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / ".m.pxe-fetch-part").write_bytes(BODY[:100_000])
    ran = node.run_config(node.entry("m", plain.url("/moved/m.bin"), BODY))
    check_placed(ran, node)
    assert ran.artifact("m")["bytes_received"] == len(BODY) - 100_000
    assert ran.artifact("m")["attempts"] == 1
