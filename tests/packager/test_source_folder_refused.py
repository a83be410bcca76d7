"""What of a folder no node would unpack is refused before anything is packed, and so is a folder that changes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.nginx import nginx
from fakes.node import FakeNode
from fakes.waiting import until
from packing.folders import EXPORTED, artifact, fetch, make, tree
from packing.site import Site
from pxe_pack import source_folder

Packs = Callable[..., str]
Refused = Callable[..., str]

MiB = 1 << 20
UNPRIVILEGED = ("unshare", "--user", "--map-user=1234", "--map-group=4321")


@pytest.fixture
def app(site: Site) -> Path:
    """A folder beside the site's configuration, which has it as its artifact."""
    site.rest = {"artifacts": [artifact()]}
    return make(site.folder / "app", {"file": "content", "d/file": "content"})


def test_all_that_no_node_would_unpack_is_named_at_once(site: Site, app: Path, refused: Refused) -> None:
    make(app, {"absolute": "-> /etc/passwd", "d/climbs": "-> ../../x", "d/detour": "-> ../d/../file"})
    os.mkfifo(app / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(app / "s"))
    (app / os.fsdecode(b"latin-\xe9")).write_text("x")
    (app / "to-latin").symlink_to(os.fsdecode(b"\xe9"))
    said = refused()
    for path, reason in {
        "absolute": "is a link to an absolute path: /etc/passwd",
        "d/climbs": "is a link that may lead out of the folder: ../../x",
        "d/detour": "is a link that may lead out of the folder: ../d/../file",
        "pipe": "is a named pipe",
        "s": "is a socket",
        "to-latin": "is a link to a name that is not UTF-8",
    }.items():
        assert f"error[source-member]: {app}/{path} {reason}" in said
    assert "latin-\\udce9' has a name that is not UTF-8" in said
    assert said.count("error[") == 7
    assert not site.leftovers()


def test_a_folder_deeper_than_a_node_unpacks_is_refused(app: Path, refused: Refused) -> None:
    make(app, {"d/" * 255 + "file": "content"})
    (app / ("d/" * 255) / "d").mkdir()
    (app / ("d/" * 256) / "file").write_text("content")
    assert "is more than 256 folders deep" in refused()


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device takes root")
def test_devices_are_refused(app: Path, refused: Refused) -> None:
    os.mknod(app / "null", 0o20666, os.makedev(1, 3))
    assert f"error[source-member]: {app}/null is a device" in refused()


def test_what_cannot_be_read_is_refused(site: Site, app: Path) -> None:
    make(app, {"sealed/inside": "x"})
    (app / "secret").write_text("x")
    (app / "secret").chmod(0)
    (app / "sealed").chmod(0)
    pack = [sys.executable, "-m", "pxe_pack", *site.command("--quiet", "--dry-run")]
    done = subprocess.run([*UNPRIVILEGED, *pack], capture_output=True, text=True, check=False)
    (app / "sealed").chmod(0o700)
    assert done.returncode == 2
    assert f"error[source-member]: {app}/secret cannot be read: Permission denied" in done.stderr
    assert f"error[source-member]: {app}/sealed cannot be read: Permission denied" in done.stderr
    assert "user ID 1234" in done.stderr


def test_of_very_many_problems_the_first_are_shown(app: Path, refused: Refused) -> None:
    make(app, {f"link{n:03}": "-> /etc" for n in range(120)})
    said = refused()
    assert said.count("is a link to an absolute path") == 20
    assert "has 100 more files that cannot be packed" in said


def test_more_members_than_a_node_unpacks_are_refused(
    app: Path, refused: Refused, packs: Packs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_folder, "MOST_MEMBERS", 3)
    packs("--dry-run")
    make(app, {"one-more": "x"})
    said = refused()
    assert f"error[source-members]: {app} has more than 3 files and folders" in said


def test_paths_too_long_for_the_destination_are_refused(site: Site, app: Path, refused: Refused, packs: Packs) -> None:
    make(app, {f"{'n' * 250}/{'m' * 250}": "x"})
    site.rest = {"artifacts": [artifact(dest="/srv/" + "/".join(["d" * 254] * 14))]}
    packs("--dry-run")
    site.rest = {"artifacts": [artifact(dest="/srv/" + "/".join(["d" * 254] * 15))]}
    assert "has 501 bytes inside the folder; below /srv/" in refused()


def test_a_path_as_long_as_can_be_is_unpacked(site: Site, app: Path, packs: Packs, tmp_path: Path) -> None:
    node = FakeNode(folder=tmp_path / "node")
    dest = node.out / ("d" * 200)
    most = 4095 - len(f"{node.out}/.{'d' * 200}.pxe-fetch-staging/")
    make(app, {f"{('n' * 199 + '/') * 20}"[: most - 1] + "n": "x"})
    with nginx(tmp_path / "nginx", root=site.output) as served:
        site.pack = {"artifact_url": served.url(f"/{EXPORTED}/")}
        site.rest = {"artifacts": [artifact(dest=str(dest))], "allowed_roots": [str(node.out)]}
        packs()
        ran = fetch(site, node)
    assert ran.code == 0, ran.err
    assert tree(dest) == tree(app)


@pytest.mark.parametrize("extract", ["none", "decompress"])
@pytest.mark.parametrize("source", ["app", "app/"])
def test_a_folder_is_unpacked_and_nothing_else(
    site: Site, app: Path, refused: Refused, extract: str, source: str
) -> None:
    site.rest = {"artifacts": [artifact("app", source, extract=extract)]}
    assert f"`extract: {extract}`, but its source {app} is a folder" in refused()


def test_a_file_with_a_slash_is_no_folder(site: Site, refused: Refused) -> None:
    (site.folder / "file").write_text("x")
    os.mkfifo(site.folder / "pipe")
    site.rest = {"artifacts": [artifact("one", "file/"), artifact("two", "none/"), artifact("three", "pipe")]}
    said = refused()
    assert f"the source of artifact one, {site.folder}/file, is a file, but `/` at the end means a folder" in said
    assert f"the source of artifact two, {site.folder}/none, does not exist" in said
    assert f"the source of artifact three, {site.folder}/pipe, is neither a file nor a folder" in said


def test_two_folders_of_one_name_clash(site: Site, app: Path, refused: Refused) -> None:
    other = make(site.folder / "other/app", {"file": "content", "d/file": "content"})
    (site.folder / "app.tar.zst").write_text("of the user's own")
    site.rest = {
        "artifacts": [artifact(), artifact("two", "other/app"), artifact("three", "app.tar.zst", dest="/srv/x")]
    }
    said = refused()
    assert f"{app} and {other} are different folders, but both would be exported as {EXPORTED}/app.tar.zst" in said
    assert f"{app} and {site.folder}/app.tar.zst are different files, but both would be exported as" in said


def test_the_output_may_not_lie_in_the_folder(site: Site, app: Path, refused: Refused) -> None:
    said = refused("--output", app / "d/pxe")
    assert f"error[output-in-source]: the output {app}/d/pxe is inside the source folder {app}" in said
    site.rest = {"artifacts": [artifact("all", "./")]}
    assert "error[output-in-source]" in refused()


def test_the_agent_run_by_hand_says_where_a_source_belongs(tmp_path: Path) -> None:
    node = FakeNode(folder=tmp_path)
    ran = node.run_config({"name": "app", "source": "app/", "dest": str(node.out / "app")})
    assert ran.code == 65
    assert "`source: app/` is on the packing machine, where no node can read it" in ran.err + ran.out


def add(folder: Path) -> None:
    (folder / "d/added").write_text("x")


def rewrite(folder: Path) -> None:
    (folder / "a").write_text("y")


def remove(folder: Path) -> None:
    (folder / "z").unlink()


def grow(folder: Path) -> None:
    with (folder / "large").open("ab") as file:
        file.write(b"more")


def shorten(folder: Path) -> None:
    os.truncate(folder / "large", 1)


def replace(folder: Path) -> None:
    """Another file of the same size and time, under the name of one that is packed already."""
    Path(shutil.copy2(folder / "a", folder.parent / "other")).replace(folder / "a")


@pytest.mark.parametrize("change", [add, rewrite, remove, grow, shorten, replace])
def test_a_folder_that_changes_while_it_is_packed_is_an_error(
    site: Site, app: Path, change: Callable[[Path], None]
) -> None:
    make(app, {"a": "x", "z": "z"})
    with (app / "large").open("wb") as file:
        file.truncate(1500 * MiB)  # zeros, which take no room and a second
    process = site.start("--quiet")
    until(lambda: list(site.folder.glob(f".pxe.pxe-pack-*/layout/{EXPORTED}/app.tar.zst")))
    change(app)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert not out
    assert f"error[source-changed]: {app} changed while it was packed" in err.decode()
    assert not site.output.exists()
    assert not site.leftovers()


@pytest.mark.parametrize("change", ["rewritten", "grown"])
def test_a_file_that_changes_while_it_is_packed_is_an_error(site: Site, change: str) -> None:
    source = site.folder / "model.bin"
    site.rest = {"artifacts": [{"name": "model", "source": source.name, "dest": "/srv/model.bin"}]}
    with source.open("wb") as file:
        file.truncate(700 * MiB)  # zeros, which take no room and part of a second
    process = site.start("--quiet")
    until(lambda: list(site.folder.glob(f".pxe.pxe-pack-*/layout/{EXPORTED}/model.bin")))
    if change == "rewritten":
        with source.open("r+b") as file:
            file.write(b"other")
    else:
        os.truncate(source, 701 * MiB)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert not out
    assert f"error[source-changed]: {source} changed while it was packed" in err.decode()
    assert not site.output.exists()
    assert not site.leftovers()
