"""Layouts are pulled, from registries that lie too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import registry as fake
from fakes.exchange import Fault
from fakes.faults import Flip, Status, cut, redirect
from fakes.server import Script, Server
from packing.registries import LARGE, Fails, MiB, Runs, files
from pxe_pack import cli


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


def test_a_pull_that_breaks_off_goes_on_where_it_was(served: Server, layout: Path, runs: Runs, tmp_path: Path) -> None:
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
    served: Server, layout: Path, fails: Fails, tmp_path: Path, title: str
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
    served: Server, layout: Path, runs: Runs, fails: Fails, tmp_path: Path
) -> None:
    runs("pull", pulls(served), "-o", tmp_path / "back")
    for body in ((layout / "liveos.iso").read_bytes(), (layout / "manifest.json").read_bytes()):
        for fault in (Flip(), cut(0.5)) if len(body) < MiB else (Flip(),):
            lie(served, layout, {})
            served.scripts[f"/v2/site/layout/blobs/{fake.digest(body)}"] = Script(body=body, then=fault)
            told = fails("pull", pulls(served), "-o", tmp_path / "back")
            assert "error[registry-" in told
    assert files(tmp_path / "back") == files(layout)


def test_a_manifest_by_digest_has_to_have_it(served: Server, fails: Fails, tmp_path: Path) -> None:
    script = served.scripts["/v2/site/layout/manifests/v1"]
    served.scripts[f"/v2/site/layout/manifests/sha256:{'0' * 64}"] = script
    told = fails("pull", f"{served.url('')}/site/layout@sha256:{'0' * 64}", "-o", tmp_path / "back")
    assert "is another manifest" in told


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b'{"layers": [' + b" " * (5 * MiB), "too much"),
        (b"<html>", "it is not the JSON of an image manifest"),
        (fake.manifest(fake.descriptor(b"x", title="model.bin")), "error[pull-no-layout]"),
        (json.dumps({"manifests": [{"digest": "sha256:1"}]}).encode(), "an index of several manifests"),
    ],
)
def test_what_is_no_layout_is_refused(served: Server, fails: Fails, tmp_path: Path, manifest: bytes, said: str) -> None:
    served.scripts["/v2/site/layout/manifests/v1"] = Script(body=manifest)
    assert said in fails("pull", pulls(served), "-o", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("fault", [Status(404), Status(500), redirect("file:///etc/passwd")])
@pytest.mark.usefixtures("_no_pauses")
def test_a_registry_without_it_is_told_after_a_few_attempts(
    served: Server, fails: Fails, tmp_path: Path, fault: Fault
) -> None:
    served.scripts["/v2/site/layout/manifests/v1"] = Script(then=fault)
    told = fails("pull", pulls(served), "-o", tmp_path / "back")
    assert "error[registry-" in told
    assert ("check the repository's name, and the tag or digest" in told) == (fault == Status(404))


def test_a_reference_with_two_schemes_is_told_which_to_leave_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["pull", "oci://http://registry.lan/site/layout:v1", "-o", "back"])
    assert ended.value.code == 2
    assert "leave out `oci://`" in capsys.readouterr().err


def test_a_folder_that_is_not_a_layouts_is_not_replaced(served: Server, fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary").write_text("dear diary\n")
    assert "error[output-foreign]" in fails("pull", pulls(served), "-o", tmp_path / "mine", code=2)
    assert (served.asked, files(tmp_path / "mine")) == ([], {"diary": b"dear diary\n"})
