"""Artifacts in container registries: Debian's docker-registry."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import registry as fake
from fakes.certs import Authority
from fakes.faults import cut, drip
from fakes.layers import (
    BODY,
    CHUNKED,
    CHUNKS,
    CREDENTIAL,
    IDENTITY,
    LOGIN,
    LOGS_IN,
    PLAIN,
    entry,
    placed,
    reference,
    scripts,
)
from fakes.node import FakeNode
from fakes.registry import PASSWORD, USER, Registry
from fakes.server import Script, Server
from fakes.token_server import TokenServer, token_server


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for everybody, by http."""
    with fake.registry(tmp_path_factory.mktemp("registry") / "open") as registry:
        yield registry


@pytest.fixture
def tokens(authority: Authority) -> Iterator[TokenServer]:
    signer = authority.issue("tokens")
    with token_server(signer, user=USER, password=PASSWORD, identity_token=IDENTITY) as server:
        yield server


@pytest.fixture
def guarded(tmp_path: Path, tokens: TokenServer, authority: Authority) -> Iterator[Registry]:
    """A registry by http that wants tokens, with PLAIN and CHUNKED in it."""
    with fake.registry(tmp_path / "guarded", tokens=tokens.url, token_root=authority.certificate) as registry:
        push = f"Bearer {tokens.token(['repository:site/model:pull,push'], actions={'pull', 'push'})}"
        fake.put(registry, "site/model", PLAIN, BODY, authorization=push)
        fake.put(registry, "site/model", CHUNKED, BODY, CHUNKS, authorization=push)
        yield registry


# Debian's docker-registry


def test_the_layer_with_the_title_is_placed_and_the_journal_names_the_reference(
    node: FakeNode, open_registry: Registry
) -> None:
    fake.put(open_registry, "site/model", PLAIN, BODY)
    ran = node.run_config(entry(node, reference(open_registry)))
    assert (ran.code, placed(node)) == (0, BODY)
    named = f"{reference(open_registry)} has m.bin: 391 KiB"
    assert named in ran.err
    assert ran.artifact("m")["oci"] == reference(open_registry)
    assert ran.artifact("m")["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert node.run_config(entry(node, reference(open_registry))).artifact("m")["phase"] == "kept"


def test_the_list_of_chunk_digests_beside_it_is_used_and_ranges_of_the_blob_come(
    node: FakeNode, open_registry: Registry
) -> None:
    fake.put(open_registry, "site/model", CHUNKED, BODY, CHUNKS)
    before = len(open_registry.requests())
    ran = node.run_config(entry(node, reference(open_registry, CHUNKED)))
    assert (ran.code, placed(node)) == (0, BODY)
    assert "sha256 of each of its 7 chunks" in ran.err
    blob = f"GET /v2/site/model/blobs/{fake.digest(BODY)}"
    assert open_registry.requests()[before:].count(blob) > 1


def test_a_download_that_was_cut_resumes_in_the_blob(node: FakeNode, open_registry: Registry) -> None:
    fake.put(open_registry, "site/model", PLAIN, BODY)
    paths = scripts(PLAIN, BODY, faults=[cut(0.5)])
    with Server(paths) as server:
        ran = node.run_config(
            entry(node, f"{server.url('')}/site/model@{fake.digest(PLAIN)}", reference(open_registry))
        )
    assert (ran.code, placed(node)) == (0, BODY)
    received = ran.artifact("m")["bytes_received"]
    assert isinstance(received, int)
    assert received <= len(BODY) + 1


def test_a_registry_with_htpasswd_gets_the_login_of_the_credential(node: FakeNode, tmp_path: Path) -> None:
    node.credential(CREDENTIAL, f"{USER}:{PASSWORD}\n")
    with fake.registry(tmp_path / "registry", htpasswd=True) as registry:
        fake.put(registry, "site/model", PLAIN, BODY, authorization=LOGIN)
        ran = node.run_config(entry(node, reference(registry), **LOGS_IN))
        assert (ran.code, placed(node)) == (0, BODY)
        assert PASSWORD not in ran.out + ran.err + node.state_file.read_text()
        node.credential(CREDENTIAL, f"{USER}:wrong")
        (node.out / "m").unlink()
        ran = node.run_config(entry(node, reference(registry), **LOGS_IN))
    assert (ran.code, ran.state["cause"]) == (77, "refused")
    assert "does not give this to the user of registry_credential (401)" in ran.err


@pytest.mark.parametrize("secret", [f"{USER}:{PASSWORD}", IDENTITY])
def test_a_token_is_got_with_a_password_or_an_identity_token_and_used_for_all_of_a_repository(
    node: FakeNode, guarded: Registry, tokens: TokenServer, secret: str
) -> None:
    node.credential(CREDENTIAL, secret)
    first = entry(node, reference(guarded), **LOGS_IN)
    second = entry(node, reference(guarded, CHUNKED), name="n", **LOGS_IN)
    ran = node.run_config(first, second, parallel=1)
    assert (ran.code, placed(node), placed(node, "n")) == (0, BODY, BODY)
    assert tokens.asked == [USER if secret.startswith(USER) else "identity"]
    assert secret not in ran.out + ran.err + node.state_file.read_text()


def test_a_public_repository_gives_a_token_to_everybody(node: FakeNode, guarded: Registry, tokens: TokenServer) -> None:
    tokens.pulls_for_all = True
    ran = node.run_config(entry(node, reference(guarded)))
    assert (ran.code, tokens.asked) == (0, ["nobody"])


def test_a_private_repository_names_the_key_that_is_missing(
    node: FakeNode, guarded: Registry, tokens: TokenServer
) -> None:
    ran = node.run_config(entry(node, reference(guarded)))
    assert (ran.code, tokens.asked) == (77, ["nobody"])
    assert "does not give this to anybody: set registry_credential (401)" in ran.err


def test_a_token_server_that_refuses_the_login_is_named(node: FakeNode, guarded: Registry) -> None:
    node.credential(CREDENTIAL, f"{USER}:wrong")
    ran = node.run_config(entry(node, reference(guarded), **LOGS_IN))
    assert (ran.code, ran.state["cause"]) == (77, "refused")
    assert "the token server http://localhost:" in ran.err


def test_a_token_that_expires_during_the_run_is_renewed(node: FakeNode, guarded: Registry, tokens: TokenServer) -> None:
    tokens.lifetime = 1.0
    node.credential(CREDENTIAL, f"{USER}:{PASSWORD}")
    with Server({"/slow": Script(body=b"12345", then=drip(0, every=0.5))}) as server:
        ran = node.run_config(
            entry(node, reference(guarded), **LOGS_IN),
            node.entry("slow", server.url("/slow"), b"12345"),
            entry(node, reference(guarded, CHUNKED), name="n", **LOGS_IN),
            parallel=1,
        )
    assert (ran.code, placed(node, "n")) == (0, BODY)
    assert set(tokens.asked) == {USER}
    assert len(tokens.asked) >= 2


def test_a_registry_by_https_is_trusted_by_the_sites_authority(
    node: FakeNode, tmp_path: Path, authority: Authority
) -> None:
    issued = authority.issue("localhost", alternative="DNS:localhost")
    tls = {"ca_file": str(authority.certificate)}
    ssl_context = ssl.create_default_context(cafile=str(authority.certificate))
    ssl_context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # from Python 3.13 on it refuses an authority like this one
    with fake.registry(tmp_path / "registry", certificate=issued) as registry:
        fake.put(registry, "site/model", PLAIN, BODY, context=ssl_context)
        ran = node.run_config(entry(node, f"localhost:{registry.port}/site/model@{fake.digest(PLAIN)}"), tls=tls)
    assert (ran.code, placed(node)) == (0, BODY)
