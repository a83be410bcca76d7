"""Who logs in to a registry: what docker left, a helper, a file, tokens."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import registry as fake
from fakes.certs import Authority
from fakes.registry import PASSWORD, USER, Registry
from fakes.token_server import token_server
from packing.registries import IDENTITY, Fails, Runs, files


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Registry]:
    with fake.registry(tmp_path / "guarded", htpasswd=True) as running:
        yield running


def test_the_login_of_docker_is_used_and_not_sent_by_http_without_being_told(
    guarded: Registry, small: Path, home: Path, runs: Runs, fails: Fails
) -> None:
    (home / ".docker").mkdir()
    auth = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))
    where = f"{guarded.place}/site/small:v1"
    assert "error[credential-unencrypted]" in fails("push", small, where, code=2)
    assert guarded.requests() == []
    runs("push", "--insecure", small, where)


def test_a_credential_helper_is_asked(
    guarded: Registry, small: Path, home: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"credHelpers": {guarded.host: "site"}}))
    helper = home / "docker-credential-site"
    answer = json.dumps({"ServerURL": guarded.host, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {guarded.host} ] && echo \'{answer}\'\n')
    helper.chmod(0o755)
    from pxe_pack import tools

    monkeypatch.setattr(tools, "SEARCH_PATH", f"{home}:{tools.SEARCH_PATH}")
    runs("push", "--insecure", small, f"{guarded.place}/site/small:v1")


def test_a_credential_helper_that_answers_something_else_has_nothing(
    guarded: Registry, small: Path, home: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"credHelpers": {guarded.host: "site"}}))
    helper = home / "docker-credential-site"
    helper.write_text("#!/bin/sh\necho '[1]'\n")
    helper.chmod(0o755)
    from pxe_pack import tools

    monkeypatch.setattr(tools, "SEARCH_PATH", f"{home}:{tools.SEARCH_PATH}")
    assert "docker login" in fails("push", small, f"{guarded.place}/site/small:v1")


def test_without_a_login_the_commands_that_log_in_are_named(
    guarded: Registry, small: Path, fails: Fails, tmp_path: Path
) -> None:
    told = fails("push", small, f"{guarded.place}/site/small:v1")
    assert "error[registry-refused]" in told
    assert "docker login" in told
    (tmp_path / "login").write_text(f"{USER}:wrong")
    told = fails("push", "--insecure", "--login", tmp_path / "login", small, f"{guarded.place}/site/small:v1")
    assert "was answered with 401" in told
    assert "wrong" not in told


@pytest.mark.parametrize("secret", [f"{USER}:{PASSWORD}", IDENTITY])
def test_tokens_are_got_for_pushing_and_for_pulling(
    layout: Path, tmp_path: Path, runs: Runs, fails: Fails, secret: str
) -> None:
    authority = Authority(tmp_path / "ca")
    (tmp_path / "login").write_text(secret + "\n")
    with (
        token_server(authority.issue("tokens"), user=USER, password=PASSWORD, identity_token=IDENTITY) as tokens,
        fake.registry(tmp_path / "registry", tokens=tokens.url, token_root=authority.certificate) as guarded,
    ):
        login = ("--insecure", "--login", tmp_path / "login")
        where = f"{guarded.place}/site/layout:v1"
        runs("push", *login, layout, where)
        runs("pull", *login, where, "-o", tmp_path / "back")
        assert "error[registry-refused]" in fails("pull", where, "-o", tmp_path / "other")
    assert files(tmp_path / "back") == files(layout)
    assert set(tokens.asked) == {"identity" if secret == IDENTITY else USER, "nobody"}


def test_https_with_a_sites_own_authority(small: Path, tmp_path: Path, runs: Runs, fails: Fails) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost", alternative="DNS:localhost")
    with fake.registry(tmp_path / "registry", certificate=issued) as secure:
        told = fails("push", small, f"oci://{secure.host}/site/small:v1")
        assert "certificate" in told
        assert "--ca-file" in told
        runs("push", "--ca-file", authority.certificate, small, f"oci://{secure.host}/site/small:v1")
