"""Layouts and artifacts in container registries: Debian's docker-registry, read back by skopeo, and others that lie."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import registry as fake
from fakes.certs import Authority
from fakes.exchange import Fault
from fakes.faults import Flip, Status, cut, redirect
from fakes.node import FakeNode
from fakes.registry import PASSWORD, USER, Registry
from fakes.server import Script, Server
from fakes.token_server import token_server
from packing.site import Site
from pxe_pack import cli

MiB = 1 << 20
LARGE = random.Random(1).randbytes(33 * MiB)
SMALL = b"a small file\n"
IDENTITY = "an.identity"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with fake.registry(tmp_path_factory.mktemp("registry") / "open") as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any login."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def runs(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, object]]:
    """Run a command; its result. The exit code has to be 0."""

    def run(*words: str | Path) -> dict[str, object]:
        capsys.readouterr()
        code = cli.main(["--json", *map(str, words)])
        captured = capsys.readouterr()
        assert code == 0, captured.out + captured.err
        document = json.loads(captured.out.splitlines()[-1])
        assert isinstance(document, dict)
        return document

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that fails; its problems."""

    def run(*words: str | Path, code: int = 1) -> str:
        capsys.readouterr()
        assert cli.main(["--quiet", *map(str, words)]) == code
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return told

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small file in a folder, and a large one."""
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (folder / "a/small.txt").write_bytes(SMALL)
    (folder / "large.bin").write_bytes(LARGE)
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, tiny: Path, agent: Path) -> Path:
    """A layout with an artifact in chunks of an unusual size. Shared: not to be written to."""
    site = Site(folder=tmp_path_factory.mktemp("site"), image=tiny, agent=agent)
    (site.folder / "m.bin").write_bytes(LARGE)
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin", "chunks": {"size": "12MiB"}}]}
    assert cli.main(site.command("--quiet")) == 0
    return site.output


@pytest.fixture
def layout(packed: Path, tmp_path: Path) -> Path:
    shutil.copytree(packed, tmp_path / "pxe")
    return tmp_path / "pxe"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def skopeo(*words: str) -> bytes:
    return subprocess.run(["skopeo", *words], check=True, capture_output=True).stdout


def test_a_folder_is_pushed_and_another_program_reads_the_same_files(
    registry: Registry, folder: Path, runs: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    pushed = runs("push", folder, f"{registry.place}/site/models:v1")
    assert pushed["reference"] == f"{registry.place}/site/models@{pushed['digest']}"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/site/models:v1")
    assert fake.digest(raw) == pushed["digest"]
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/site/models:v1", f"dir:{tmp_path}/copied")
    titles = {
        layer["annotations"]["org.opencontainers.image.title"]: (tmp_path / "copied" / layer["digest"][7:]).read_bytes()
        for layer in json.loads(raw)["layers"]
    }
    chunks = titles.pop("large.bin.chunks")
    assert titles == files(folder)
    assert chunks.split()[0].decode() == hashlib.sha256(LARGE[: 4 * MiB]).hexdigest()


def test_what_is_pushed_is_what_a_node_takes_in_chunks(
    registry: Registry, folder: Path, runs: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    reference = runs("push", folder, f"{registry.place}/site/models:v2")["reference"]
    node = FakeNode(folder=tmp_path / "node")
    node.boot_with("quiet")
    wanted = {"large.bin": LARGE, "a/small.txt": SMALL, "empty": b""}
    ran = node.run_config(
        *(
            {"name": Path(title).name, "oci": reference, "title": title, "dest": str(node.out / title)}
            for title in wanted
        )
    )
    assert (ran.code, files(node.out)) == (0, wanted)
    assert "sha256 of each of its 9 chunks" in ran.err


def test_pushing_again_sends_nothing_and_gives_the_same_digest(
    registry: Registry, folder: Path, runs: Callable[..., dict[str, object]]
) -> None:
    first = runs("push", folder, f"{registry.place}/site/again:v1")
    before = len(registry.requests())
    assert runs("push", folder, f"{registry.place}/site/again:v1") == first
    assert not [line for line in registry.requests()[before:] if line.startswith("POST")]


def test_a_layout_comes_back_as_it_was(
    registry: Registry, layout: Path, runs: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    runs("push", layout, f"{registry.place}/site/layout:v1")
    pulled = runs("pull", f"{registry.place}/site/layout:v1", "-o", tmp_path / "back")
    assert files(tmp_path / "back") == files(layout)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "back", check=True)
    assert str(pulled["reference"]).startswith(f"{registry.place}/site/layout@sha256:")
    (tmp_path / "back/liveos.iso").unlink()
    runs("pull", str(pulled["reference"]), "-o", tmp_path / "back")
    assert files(tmp_path / "back") == files(layout)


def test_the_list_of_chunks_in_a_layout_is_used_by_nodes_whatever_their_size(
    registry: Registry, layout: Path, runs: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    pushed = runs("push", layout, f"{registry.place}/site/layout:v1")
    node = FakeNode(folder=tmp_path / "node")
    node.boot_with("quiet")
    artifact = {"oci": pushed["reference"], "title": "other-user-artifacts/m.bin", "dest": str(node.out / "m")}
    ran = node.run_config({"name": "m", **artifact})
    assert (ran.code, (node.out / "m").read_bytes()) == (0, LARGE)
    assert "sha256 of each of its 3 chunks" in ran.err


def test_a_layout_that_was_changed_by_hand_is_not_pushed(
    registry: Registry, layout: Path, fails: Callable[..., str]
) -> None:
    iso = bytearray((layout / "liveos.iso").read_bytes())
    iso[-1] ^= 1
    (layout / "liveos.iso").write_bytes(iso)
    assert "error[layout-differs]" in fails("push", layout, f"{registry.place}/site/changed:v1")
    (layout / "liveos.iso").unlink()
    assert "error[layout-differs]" in fails("push", layout, f"{registry.place}/site/changed:v1", code=2)
    assert not [line for line in registry.requests() if "/site/changed/" in line]


def test_what_no_registry_can_hold_is_refused(
    registry: Registry, folder: Path, fails: Callable[..., str], tmp_path: Path
) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    assert "error[push-file]" in fails("push", folder, f"{registry.place}/site/x:v1", code=2)
    (folder / "link").unlink()
    (folder / "hollow").mkdir()
    assert "an empty folder" in fails("push", folder, f"{registry.place}/site/x:v1", code=2)
    assert "error[push-file]" in fails("push", tmp_path / "nothing", f"{registry.place}/site/x:v1", code=2)


# Logging in


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Registry]:
    with fake.registry(tmp_path / "guarded", htpasswd=True) as running:
        yield running


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.txt"
    file.write_bytes(SMALL)
    return file


def test_the_login_of_docker_is_used_and_not_sent_by_http_without_being_told(
    guarded: Registry, small: Path, home: Path, runs: Callable[..., dict[str, object]], fails: Callable[..., str]
) -> None:
    (home / ".docker").mkdir()
    auth = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (home / ".docker/config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))
    where = f"{guarded.place}/site/small:v1"
    assert "error[credential-unencrypted]" in fails("push", small, where, code=2)
    assert guarded.requests() == []
    runs("push", "--insecure", small, where)


def test_a_credential_helper_is_asked(
    guarded: Registry, small: Path, home: Path, runs: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
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


def test_without_a_login_the_commands_that_log_in_are_named(
    guarded: Registry, small: Path, fails: Callable[..., str], tmp_path: Path
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
    layout: Path, tmp_path: Path, runs: Callable[..., dict[str, object]], fails: Callable[..., str], secret: str
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


def test_https_with_a_sites_own_authority(
    small: Path, tmp_path: Path, runs: Callable[..., dict[str, object]], fails: Callable[..., str]
) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost", alternative="DNS:localhost")
    with fake.registry(tmp_path / "registry", certificate=issued) as secure:
        told = fails("push", small, f"oci://{secure.host}/site/small:v1")
        assert "certificate" in told
        assert "--ca-file" in told
        runs("push", "--ca-file", authority.certificate, small, f"oci://{secure.host}/site/small:v1")


# Registries that lie


@pytest.fixture
def served(layout: Path) -> Iterator[Server]:
    """A registry of ours with the layout, at `/site/layout:v1`."""
    with Server() as server:
        lie(server, layout, {})
        yield server


def lie(server: Server, layout: Path, others: dict[str, object], **titles: bytes) -> None:
    """Have `server` be a registry with the layout; `others` replace parts of its manifest, `titles` are more layers."""
    contents = {**files(layout), **titles}
    layers = [fake.descriptor(body, title=title) for title, body in contents.items()]
    manifest = fake.manifest(*layers, **others)
    blobs = {f"/v2/site/layout/blobs/{fake.digest(body)}": Script(body=body) for body in contents.values()}
    server.scripts = {**blobs, "/v2/site/layout/manifests/v1": Script(body=manifest)}


def pulls(server: Server) -> str:
    return f"{server.url('')}/site/layout:v1"


def test_a_pull_that_breaks_off_goes_on_where_it_was(
    served: Server, layout: Path, runs: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    blob = f"/v2/site/layout/blobs/{fake.digest(LARGE)}"
    served.scripts[blob] = Script(body=LARGE, faults=[cut(0.5), Status(503)])
    with Server({"/storage": Script(body=LARGE)}) as storage:
        runs("pull", pulls(served), "-o", tmp_path / "back")
        assert served.asked_for(blob)[-1].range is not None
        assert files(tmp_path / "back") == files(layout)
        served.scripts[blob] = Script(then=redirect(storage.url("/storage"), code=307))
        (tmp_path / "back/liveos.iso").unlink()
        runs("pull", pulls(served), "-o", tmp_path / "back")
        assert len(storage.asked) == 1


@pytest.mark.parametrize("title", ["../x", "/tmp/x", "a/../../x", "", "SHA256SUMS", "extra"])
def test_a_title_that_the_layout_does_not_list_is_refused_and_writes_nothing(
    served: Server, layout: Path, fails: Callable[..., str], tmp_path: Path, title: str
) -> None:
    lie(served, layout, {}, evil=b"evil\n")
    script = served.scripts["/v2/site/layout/manifests/v1"]
    assert isinstance(script.body, bytes)
    served.scripts["/v2/site/layout/manifests/v1"] = Script(
        body=script.body.replace(b'"evil"', json.dumps(title).encode())
    )
    before = sorted(tmp_path.rglob("*"))
    assert "error[registry-wrong]" in fails("pull", pulls(served), "-o", tmp_path / "back")
    assert sorted(tmp_path.rglob("*")) == before


def test_other_bytes_are_refused_and_the_folder_stays_as_it_was(
    served: Server, layout: Path, runs: Callable[..., dict[str, object]], fails: Callable[..., str], tmp_path: Path
) -> None:
    runs("pull", pulls(served), "-o", tmp_path / "back")
    for body in ((layout / "liveos.iso").read_bytes(), (layout / "manifest.json").read_bytes()):
        for fault in (Flip(), cut(0.5)) if len(body) < MiB else (Flip(),):
            lie(served, layout, {})
            served.scripts[f"/v2/site/layout/blobs/{fake.digest(body)}"] = Script(body=body, then=fault)
            told = fails("pull", pulls(served), "-o", tmp_path / "back")
            assert "error[registry-" in told
    assert files(tmp_path / "back") == files(layout)


def test_a_manifest_by_digest_has_to_have_it(served: Server, fails: Callable[..., str], tmp_path: Path) -> None:
    script = served.scripts["/v2/site/layout/manifests/v1"]
    served.scripts[f"/v2/site/layout/manifests/sha256:{'0' * 64}"] = script
    told = fails("pull", f"{served.url('')}/site/layout@sha256:{'0' * 64}", "-o", tmp_path / "back")
    assert "is another manifest" in told


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b'{"layers": [' + b" " * (5 * MiB), "too much"),
        (b"<html>", "it is not JSON"),
        (fake.manifest(fake.descriptor(b"x", title="model.bin")), "error[pull-no-layout]"),
        (json.dumps({"manifests": [{"digest": "sha256:1"}]}).encode(), "an index of several manifests"),
    ],
)
def test_what_is_no_layout_is_refused(
    served: Server, fails: Callable[..., str], tmp_path: Path, manifest: bytes, said: str
) -> None:
    served.scripts["/v2/site/layout/manifests/v1"] = Script(body=manifest)
    assert said in fails("pull", pulls(served), "-o", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("fault", [Status(404), Status(500), redirect("file:///etc/passwd")])
def test_a_registry_without_it_is_told_after_a_few_attempts(
    served: Server, fails: Callable[..., str], tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    served.scripts["/v2/site/layout/manifests/v1"] = Script(then=fault)
    assert "error[registry-" in fails("pull", pulls(served), "-o", tmp_path / "back")


def test_a_folder_that_is_not_a_layouts_is_not_replaced(
    served: Server, fails: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary").write_text("dear diary\n")
    assert "error[output-foreign]" in fails("pull", pulls(served), "-o", tmp_path / "mine", code=2)
    assert (served.asked, files(tmp_path / "mine")) == ([], {"diary": b"dear diary\n"})


def test_no_registry_at_all_is_told(small: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    told = fails("push", small, "http://localhost:1/site/x:v1")
    assert "error[registry-unreachable]" in told
    assert "refused" in told


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("registry.lan/Upper/case:v1", "has no valid repository"),
        ("registry.lan/site/model", "has no digest"),
        (f"registry.lan/site/model@sha256:{'0' * 64}", "has a digest: give a tag"),
    ],
)
def test_a_reference_that_cannot_be_pushed_to_is_a_usage_error(
    small: Path, capsys: pytest.CaptureFixture[str], reference: str, said: str
) -> None:
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["push", str(small), reference])
    assert exit_code.value.code == 2
    assert said in capsys.readouterr().err
