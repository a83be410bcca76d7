"""Layouts that are published as versions below one folder, of which servers serve one; and going back to another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.site import Site
from pxe_pack import cli

NEW = "http://192.0.2.7/images/other.iso"


@pytest.fixture
def top(site: Site) -> Path:
    """The folder that is published to."""
    (site.folder / "published").mkdir()
    return site.folder / "published"


@pytest.fixture
def publish(site: Site, top: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Pack with an artifact of this content; gives the name of the version that is current then."""

    def run(content: str, *arguments: str) -> str:
        (site.folder / "m.bin").write_text(content)
        site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
        code = cli.main(site.command("--quiet", "--publish", str(top), *arguments))
        assert code == 0, capsys.readouterr().err
        return current(top)

    return run


def current(top: Path) -> str:
    target = str((top / "current").readlink())
    assert target.startswith("versions/")
    return target.removeprefix("versions/")


def versions(top: Path) -> list[str]:
    return sorted(path.name for path in (top / "versions").iterdir())


def served(top: Path) -> str:
    return (top / "current/other-user-artifacts/m.bin").read_text()


def listed(top: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert cli.main(["versions", str(top), "--json"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(document["versions"], list)
    return document["versions"]


def test_each_pack_is_a_version_and_the_newest_is_served(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish("one")
    second = publish("two", "--boot-url", NEW)
    assert versions(top) == [first, second]
    assert served(top) == "two"
    assert sorted(path.name for path in top.iterdir()) == ["current", "history", "versions"]
    for name in (first, second):
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=top / "versions" / name, check=True)
    newest, oldest = listed(top, capsys)
    assert (newest["version"], newest["current"], oldest["current"]) == (second, True, False)
    assert isinstance(newest["changes"], list)
    told = {change["what"]: change["text"] for change in newest["changes"]}
    assert told["artifacts"] == "artifacts changed: other-user-artifacts/m.bin"
    assert told["boot-url"].endswith(f" → {NEW}")
    assert "boot/grub2/grub.cfg" in told["boot-files"]
    assert "agent" not in told
    assert oldest["changes"] == []
    assert newest["kernels"] == oldest["kernels"] != {}
    assert cli.main(["versions", str(top)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"* {second}  ")
    assert lines[-1].startswith(f"  {first}  ")


def test_a_version_says_which_configuration_by_url_it_is_pinned_to(
    site: Site, top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(site.command("--quiet")) == 0
    fleet = site.folder / "fleet.yaml"
    for serial in (1, 2):
        fleet.write_text(json.dumps({"version": 1, "serial": serial, **site.rest}))
        pinned = ["pin", str(site.output), str(fleet), "--url", "http://10.0.0.1/fleet.yaml", "--quiet"]
        assert cli.main(pinned) == 0
        assert cli.main(["publish", str(site.output), str(top), "--quiet"]) == 0
    newest, _ = listed(top, capsys)
    assert isinstance(newest["changes"], list)
    told = {change["what"]: change["text"] for change in newest["changes"]}
    assert told["pinned"].startswith("configuration by URL http://10.0.0.1/fleet.yaml (")
    assert "configuration" not in told


def test_the_same_layout_again_is_no_further_version(top: Path, publish: Callable[..., str]) -> None:
    first, second = publish("one"), publish("two")
    assert publish("one") == first
    assert versions(top) == [first, second]


def test_rollback_goes_to_what_was_served_before_and_never_to_what_was_left(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, bad = publish("one"), publish("two"), publish("bad")
    assert cli.main(["rollback", str(top)]) == 0
    assert bad in capsys.readouterr().out
    assert served(top) == "two"
    fourth = publish("four")
    assert cli.main(["rollback", str(top)]) == 0
    assert served(top) == "two", "the version before the newest is one that was rolled back from"
    assert cli.main(["rollback", str(top / "current")]) == 0
    assert current(top) == first
    capsys.readouterr()
    assert cli.main(["rollback", str(top)]) == 2
    said = capsys.readouterr().err
    assert "error[version-unknown]" in said
    assert second in said
    assert cli.main(["rollback", str(top), fourth.partition("-")[2]]) == 0
    assert served(top) == "four"


@pytest.mark.parametrize(("version", "reference"), [("2019", "version-unknown"), ("", "version-incomplete")])
def test_rollback_to_what_cannot_be_served_changes_nothing(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str], version: str, reference: str
) -> None:
    first, second = publish("one"), publish("two")
    (top / "versions" / first / "boot/vmlinuz").unlink()
    assert cli.main(["rollback", str(top), *([version] if version else [])]) == 2
    assert f"error[{reference}]" in capsys.readouterr().err
    assert current(top) == second


def test_a_version_with_a_file_that_was_cut_off_does_not_become_current(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = publish("one"), publish("two")
    (top / "versions" / first / "boot/vmlinuz").write_bytes(b"")
    assert cli.main(["rollback", str(top)]) == 2
    assert "boot/vmlinuz has 0 bytes, but manifest.json says" in capsys.readouterr().err
    assert current(top) == second


def test_versions_are_listed_beside_one_that_is_damaged(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = publish("one"), publish("two"), publish("three")
    (top / "versions" / second / "manifest.json").write_text("{")
    newest, damaged, oldest = listed(top, capsys)
    assert [one["version"] for one in (newest, damaged, oldest)] == [third, second, first]
    assert "manifest.json" in str(damaged["damaged"])
    assert isinstance(newest["changes"], list)
    assert "artifacts changed: other-user-artifacts/m.bin" in {one["text"] for one in newest["changes"]}
    assert cli.main(["versions", str(top)]) == 0
    assert f"  {second}  damaged: " in capsys.readouterr().out


@pytest.mark.parametrize("command", [["versions"], ["rollback"], ["snippet", "nginx"], ["serve"]])
def test_that_no_version_is_current_is_said_with_the_link_that_is_missing(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    version = publish("one")
    (top / "current").unlink()
    capsys.readouterr()
    assert cli.main([*command, str(top)]) == 2
    said = capsys.readouterr().err
    assert "but no link current" in said
    assert f"ln -s versions/{version} {top}/current" in said


def test_old_versions_are_removed_but_not_those_that_are_in_use(top: Path, publish: Callable[..., str]) -> None:
    made = [publish(f"{number}", "--keep", "3") for number in range(4)]
    assert versions(top) == made[1:]
    assert cli.main(["rollback", str(top), made[1]]) == 0
    last = publish("last", "--keep", "1")
    assert versions(top) == [made[1], last], "nodes may still be booting the one before"
    assert publish("many") in versions(top)
    assert (top / "history").read_text().split()[-2:] == [last, current(top)]


def test_a_reader_of_current_never_finds_it_missing_or_torn(top: Path, publish: Callable[..., str]) -> None:
    first, second = publish("one"), publish("two")
    seen, end = set(), threading.Event()

    def read() -> None:
        while not end.is_set():
            seen.add(served(top))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(40):
            assert cli.main(["rollback", str(top), (first, second)[number % 2], "--quiet"]) == 0
    finally:
        end.set()
        reader.join()
    assert seen == {"one", "two"}


def test_killed_at_any_moment_it_leaves_a_version_that_is_whole(
    site: Site, top: Path, publish: Callable[..., str]
) -> None:
    publish("0")
    delay, code = 0.5, -signal.SIGKILL
    while code == -signal.SIGKILL:
        (site.folder / "m.bin").write_text(f"after {delay}")
        command = [sys.executable, "-m", "pxe_pack", *site.command("--publish", str(top), "--keep", "2")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        code, delay = process.returncode, delay * 1.6
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=top / "current", check=True)
    assert code == 0
    assert {path.name for path in top.iterdir()} == {"current", "history", "versions"}


def test_a_layout_that_was_changed_elsewhere_is_published_as_it_is(
    site: Site, packs: Callable[..., str], top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish("one")
    (site.folder / "m.bin").write_text("two")
    packs()
    assert cli.main(["relocate", str(site.output), "--boot-url", NEW, "--quiet"]) == 0
    assert cli.main(["publish", str(site.output), str(top), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["current"], versions(top)) == (current(top), [first, current(top)])
    files = {path.relative_to(site.output): path.read_bytes() for path in site.output.rglob("*") if path.is_file()}
    now = top / "current"
    assert {path.relative_to(now): path.read_bytes() for path in now.rglob("*") if path.is_file()} == files
    assert cli.main(["publish", str(site.output), str(top), "--quiet"]) == 0
    assert len(versions(top)) == 2
    (site.output / "notes.txt").write_text("mine")
    (site.output / "boot/vmlinuz").unlink()
    assert cli.main(["publish", str(site.output), str(top)]) == 2
    said = capsys.readouterr().err
    assert "notes.txt" in said
    assert "boot/vmlinuz" in said


def test_a_published_version_does_not_change(
    top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    publish("one")
    version = str(top / "current")
    for command in (
        ["relocate", version, "--boot-url", NEW],
        ["remove", version],
        ["pin", version, "--remove"],
        ["pack", str(top.parent / "fetch.yaml"), "--output", str((top / "current").resolve())],
    ):
        assert cli.main(command) == 2
        assert "error[output-published]" in capsys.readouterr().err
    assert cli.main(["relocate", str(top), "--boot-url", NEW]) == 2
    assert "give DIR/current" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        (["--publish", "published", "--output", "pxe"], "publish-and-output"),
        (["--publish", "published", "--format", "tar"], "publish-and-output"),
        (["--publish", "nowhere/at-all"], "output-no-parent"),
        (["--publish", "foreign"], "output-foreign"),
        (["--keep", "3"], "keep-without-publish"),
    ],
)
def test_where_nothing_can_be_published(
    site: Site, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], reference: str
) -> None:
    (site.folder / "foreign/files").mkdir(parents=True)
    monkeypatch.chdir(site.folder)
    assert f"error[{reference}]" in refused(*arguments)


def test_a_folder_without_versions_is_told_as_that(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("versions", "rollback"):
        assert cli.main([command, str(top)]) == 2
        assert "error[not-published]" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_history_that_is_no_file_is_told_and_nothing_is_published(
    site: Site, top: Path, publish: Callable[..., str], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    publish("one")
    history = top / "history"
    history.unlink()
    if kind == "pipe":
        os.mkfifo(history)
    else:
        history.mkdir()
    before = sorted(top.rglob("*"))
    for command in (site.command("--publish", str(top)), ["rollback", str(top)]):
        capsys.readouterr()
        assert cli.main([*command, "--quiet"]) == 2
        assert f"error[output-foreign]: cannot read {history}: " in capsys.readouterr().err
        assert sorted(top.rglob("*")) == before
