"""Layouts and images that former versions packed: each command understands them (upgrades/make.py has made them)."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packing.site import Site, files_of
from pxe_pack import cli

LAYOUTS = Path(__file__).parent / "upgrades/layouts.tar.xz"
VERSIONS = ("2026-11-29", "2026-11-30-morning", "2026-11-30-noon")
WAYS = ("updates", "rootfs", "initrd")
WITHOUT_RECORD = VERSIONS[0]  # its packed ISOs do not say what their originals were
EVERY = [f"{version}-{way}" for version in VERSIONS for way in WAYS]
ISOS = [name for name in EVERY if not name.endswith("initrd")]

Told = Callable[..., Any]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upgrades")
    with tarfile.open(LAYOUTS) as archive:
        archive.extractall(folder)  # noqa: S202  our own
    return folder


@pytest.fixture
def layout(unpacked: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a former version's layout."""
    return Path(shutil.copytree(unpacked / request.param, tmp_path / str(request.param)))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run a command with --json; its result. The exit code has to be 0."""

    def run(*words: str | Path) -> Any:  # noqa: ANN401  JSON
        code = cli.main([*map(str, words), "--json"])
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert code == 0, events
        return next(event for event in reversed(events) if event["event"] not in {"step", "progress", "problem"})

    return run


def way_of(layout: Path) -> str:
    return layout.name.rpartition("-")[2]


def version_of(layout: Path) -> str:
    return layout.name.rpartition("-")[0]


def verify(layout: Path) -> None:
    """By coreutils: all files that the checksums name have these bytes."""
    subprocess.run(
        ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=layout, check=True, capture_output=True
    )


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_layout_of_a_former_version_is_shown_with_what_was_packed(layout: Path, told: Told) -> None:
    shown = told("show", layout)
    (found,) = shown["injected"]
    assert (found["how"], found["agent"], found["configured"]) == (way_of(layout), "0.1.0", True)
    config = told("show", layout, "--config")["config"]
    assert "http://10.0.0.1/other-user-artifacts/motd.txt" in config


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_layout_of_a_former_version_is_checked_and_found_unchanged(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["check", str(layout), "--offline", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    references = {finding["reference"] for finding in report["findings"]}
    assert not references & {"layout-differs", "layout-unreadable", "agent-damaged", "artifact-differs"}
    assert report["chain"]


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_layout_of_a_former_version_is_relocated(layout: Path, told: Told) -> None:
    moves = ["--artifact-url", "http://10.9.0.1/files/"]
    if way_of(layout) != "initrd":
        moves += ["--boot-url", "http://10.9.0.1/node.iso"]
    told("relocate", layout, *moves)
    verify(layout)
    grub_cfg = (layout / "boot/grub2/grub.cfg").read_text()
    assert "pxe-fetch.artifact_url=http://10.9.0.1/files/" in grub_cfg
    manifest = json.loads((layout / "manifest.json").read_text())
    urls = {entry["path"]: entry.get("url") for entry in manifest["outputs"]}
    assert urls["other-user-artifacts/motd.txt"] == "http://10.9.0.1/files/motd.txt"
    if way_of(layout) != "initrd":
        assert "root=live:http://10.9.0.1/node.iso" in grub_cfg
        assert urls["node.iso"] == "http://10.9.0.1/node.iso"


@pytest.mark.parametrize("layout", EVERY, indirect=True)
def test_a_payload_of_a_former_version_is_removed(layout: Path, told: Told, unpacked: Path) -> None:
    assert told("remove", layout)["removed"] == [way_of(layout)]
    verify(layout)
    assert told("show", layout)["injected"] == []
    assert not (layout / "other-user-artifacts").exists()
    if way_of(layout) == "initrd":
        initrd = files_of(unpacked / "image-full-os.iso")["boot/initrd.img"]
        assert (layout / "boot/initrd.img").read_bytes() == initrd
    elif version_of(layout) != WITHOUT_RECORD:
        assert (layout / "liveos.iso").read_bytes() == (unpacked / "image.iso").read_bytes()
    else:
        before = files_of(unpacked / "image.iso")
        after = {path: content for path, content in files_of(layout / "liveos.iso").items() if path in before}
        assert after.keys() == before.keys()
        assert after["liveos/rootfs.img"] == before["liveos/rootfs.img"]


@pytest.mark.parametrize("layout", ISOS, indirect=True)
def test_an_image_of_a_former_version_is_packed_again_with_one_payload_in_another_way(
    layout: Path, site: Site, told: Told, packs: Callable[..., str], unpacked: Path
) -> None:
    way = "rootfs" if way_of(layout) == "updates" else "updates"
    site.image = layout / "liveos.iso"
    packs("--inject", way)
    (found,) = told("show", site.output)["injected"]
    assert (found["how"], found["agent"]) == (way, "0.0.1")
    if version_of(layout) != WITHOUT_RECORD:  # as if the original had been packed
        packed = hashlib.sha256(site.iso.read_bytes()).digest()
        site.image = unpacked / "image.iso"
        packs("--inject", way)
        assert hashlib.sha256(site.iso.read_bytes()).digest() == packed


@pytest.mark.parametrize("layout", [f"{version}-updates" for version in VERSIONS], indirect=True)
def test_a_layout_of_a_former_version_is_replaced_by_a_pack(
    layout: Path, site: Site, told: Told, packs: Callable[..., str], unpacked: Path
) -> None:
    site.image = unpacked / "image.iso"
    packs("--output", layout)
    verify(layout)
    (found,) = told("show", layout)["injected"]
    assert found["agent"] == "0.0.1"
    assert not (layout / "other-user-artifacts").exists()


def test_each_version_is_there_in_each_way(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir() if path.is_dir()} == set(EVERY)
