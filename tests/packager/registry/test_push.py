"""Layouts and folders are pushed to Debian's docker-registry, and read back by skopeo and by the agent."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from fakes import registry as fake
from fakes.faults import Raw, Status
from fakes.node import FakeNode
from fakes.registry import Registry
from fakes.server import Script, Server
from packing.registries import LARGE, SMALL, Fails, MiB, Runs, files, skopeo
from pxe_pack import cli


def test_a_folder_is_pushed_and_another_program_reads_the_same_files(
    registry: Registry, folder: Path, runs: Runs, tmp_path: Path
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
    registry: Registry, folder: Path, runs: Runs, tmp_path: Path
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


def test_pushing_again_sends_nothing_and_gives_the_same_digest(registry: Registry, folder: Path, runs: Runs) -> None:
    first = runs("push", folder, f"{registry.place}/site/again:v1")
    before = len(registry.requests())
    assert runs("push", folder, f"{registry.place}/site/again:v1") == first
    assert not [line for line in registry.requests()[before:] if line.startswith("POST")]


def test_a_layout_comes_back_as_it_was(registry: Registry, layout: Path, runs: Runs, tmp_path: Path) -> None:
    runs("push", layout, f"{registry.place}/site/layout:v1")
    pulled = runs("pull", f"{registry.place}/site/layout:v1", "-o", tmp_path / "back")
    assert files(tmp_path / "back") == files(layout)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "back", check=True)
    assert str(pulled["reference"]).startswith(f"{registry.place}/site/layout@sha256:")
    (tmp_path / "back/liveos.iso").unlink()
    runs("pull", str(pulled["reference"]), "-o", tmp_path / "back")
    assert files(tmp_path / "back") == files(layout)


def test_the_list_of_chunks_in_a_layout_is_used_by_nodes_whatever_their_size(
    registry: Registry, layout: Path, runs: Runs, tmp_path: Path
) -> None:
    pushed = runs("push", layout, f"{registry.place}/site/layout:v1")
    node = FakeNode(folder=tmp_path / "node")
    node.boot_with("quiet")
    artifact = {"oci": pushed["reference"], "title": "other-user-artifacts/m.bin", "dest": str(node.out / "m")}
    ran = node.run_config({"name": "m", **artifact})
    assert (ran.code, (node.out / "m").read_bytes()) == (0, LARGE)
    assert "sha256 of each of its 3 chunks" in ran.err


def test_a_layout_that_was_changed_by_hand_is_not_pushed(registry: Registry, layout: Path, fails: Fails) -> None:
    iso = bytearray((layout / "liveos.iso").read_bytes())
    iso[-1] ^= 1
    (layout / "liveos.iso").write_bytes(iso)
    assert "error[layout-differs]" in fails("push", layout, f"{registry.place}/site/changed:v1")
    (layout / "liveos.iso").unlink()
    assert "error[layout-differs]" in fails("push", layout, f"{registry.place}/site/changed:v1", code=2)
    assert not [line for line in registry.requests() if "/site/changed/" in line]


def test_what_no_registry_can_hold_is_refused(registry: Registry, folder: Path, fails: Fails, tmp_path: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    assert "error[push-file]" in fails("push", folder, f"{registry.place}/site/x:v1", code=2)
    (folder / "link").unlink()
    (folder / "hollow").mkdir()
    assert "an empty folder" in fails("push", folder, f"{registry.place}/site/x:v1", code=2)
    assert "nothing does not exist" in fails("push", tmp_path / "nothing", f"{registry.place}/site/x:v1", code=2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("site/fetch.report-token", b"0123456789abcdef0123456789abcdef\n"),
        ("site/key.pem", b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n"),
        ("tls", b"# of the site\n-----BEGIN PRIVATE KEY-----\nMIIE\n"),
        ("any.name", b"untrusted comment: ours\n" + base64.b64encode(b"EdScB2" + bytes(152)) + b"\n"),
    ],
)
def test_what_is_secret_is_not_pushed(
    registry: Registry, folder: Path, fails: Fails, name: str, content: bytes
) -> None:
    (folder / "site").mkdir()
    (folder / "site/key.pub").write_bytes(b"-----BEGIN PUBLIC KEY-----\nMIIE\n")
    (folder / name).write_bytes(content)
    told = fails("push", folder, f"{registry.place}/site/secret:v1", code=2)
    assert "error[push-secret]" in told
    assert str(folder / name) in told
    assert not [line for line in registry.requests() if "/site/secret/" in line]


def test_that_the_image_has_the_token_for_reports_is_said(
    registry: Registry, layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((layout / "manifest.json").read_text())
    manifest["report"] = {"url": "http://10.0.0.1/report"}
    (layout / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["push", str(layout), f"{registry.place}/site/reporting:v1"]) == 0
    assert "warning[push-token]" in capsys.readouterr().err


def test_of_a_published_folder_one_version_is_pushed(registry: Registry, layout: Path, fails: Fails) -> None:
    name = "20261130T074501Z-1a2b3c4d"
    top = layout.parent / "published"
    (top / "versions").mkdir(parents=True)
    layout.rename(top / "versions" / name)
    (top / "current").symlink_to(f"versions/{name}")
    told = fails("push", top, f"{registry.place}/site/published:v1", code=2)
    assert f"pxe-pack push {top}/current" in told


@pytest.mark.usefixtures("_no_pauses")
def test_a_file_is_not_sent_again_when_only_the_answer_was_lost(small: Path, runs: Runs) -> None:
    begun = Status(202, {"Location": "/upload"})
    missing, manifests = Script(faults=[Status(404)]), Script(faults=[Status(201)])
    blobs = {f"/v2/site/x/blobs/{fake.digest(body)}": missing for body in (SMALL, fake.EMPTY)}
    scripts = {
        **blobs,
        "/v2/site/x/blobs/uploads/": Script(faults=[begun, begun], then=begun),
        "/upload": Script(faults=[Status(201), Raw(b"")]),
        "/v2/site/x/manifests/v1": manifests,
    }
    with Server(scripts) as other:
        runs("push", small, other.url("/site/x:v1"))
        sent = [one.body for one in other.asked if one.method == "PUT" and one.path.startswith("/upload")]
    assert sent == [fake.EMPTY, SMALL]


@pytest.mark.parametrize("location", ["http://[", "ftp://x/y", "//[/"])
def test_an_upload_to_what_is_no_place_for_it_is_refused(small: Path, fails: Fails, location: str) -> None:
    begun = Script(faults=[Status(202, {"Location": location})])
    with Server({"/v2/site/x/blobs/uploads/": begun}) as other:
        assert "error[registry-wrong]" in fails("push", small, other.url("/site/x:v1"))


@pytest.mark.usefixtures("_no_pauses")
def test_no_registry_at_all_is_told(small: Path, fails: Fails) -> None:
    told = fails("push", small, "http://localhost:1/site/x:v1")
    assert "error[registry-unreachable]" in told
    assert "refused" in told


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("registry.lan/Upper/case:v1", "has no valid repository"),
        ("registry.lan/site/model", "has neither a digest nor a tag"),
        (f"registry.lan/site/model@sha256:{'0' * 64}", "has a digest: give a tag"),
        ("registry.lan/${arch}/model:v1", "has a ${fact}"),
    ],
)
def test_a_reference_that_cannot_be_pushed_to_is_a_usage_error(
    small: Path, capsys: pytest.CaptureFixture[str], reference: str, said: str
) -> None:
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["push", str(small), reference])
    assert exit_code.value.code == 2
    assert said in capsys.readouterr().err
