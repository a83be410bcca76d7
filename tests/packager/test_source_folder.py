"""A folder as an artifact's source: one archive in the layout, the same tree on the node."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.nginx import Nginx, nginx
from fakes.node import FakeNode
from packing.folders import EXPORTED, artifact, fetch, make, told, tree
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]

BASE = "http://10.0.0.1/files/"
ARCHIVE = f"{EXPORTED}/app.tar.zst"
APP = {
    "bin/run": "#!/bin/sh\n",
    "bin/also": "-> run",
    "etc/": None,
    "lib/data": b"\0" * 5000,
    "lib/up": "-> ../bin/run",
}
UMASK = "import os, sys; os.umask(int(sys.argv.pop(1), 8)); from pxe_pack import cli; sys.exit(cli.main(sys.argv[1:]))"


@pytest.fixture
def app(site: Site) -> Path:
    """A folder beside the site's configuration, which has it as its artifact."""
    site.pack = {"artifact_url": BASE}
    site.rest = {"artifacts": [artifact()]}
    folder = make(site.folder / "app", APP)
    (folder / "bin/run").chmod(0o755)
    return folder


@pytest.fixture
def served(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The site's layout behind nginx, from when it is packed on."""
    with nginx(tmp_path_factory.mktemp("nginx") / "nginx", root=site.output) as running:
        yield running


@pytest.fixture
def node(site: Site, served: Nginx, tmp_path_factory: pytest.TempPathFactory) -> FakeNode:
    """A node, to which the site's artifact goes."""
    one = FakeNode(folder=tmp_path_factory.mktemp("node"))
    site.pack = {"artifact_url": served.url(f"/{EXPORTED}/")}
    site.rest = {"artifacts": [artifact(dest=str(one.out / "app"))], "allowed_roots": [str(one.out)]}
    return one


def members(site: Site) -> list[tarfile.TarInfo]:
    """The members of the exported archive, as others' tools read it."""
    command = ["zstd", "-dcq", str(site.output / ARCHIVE)]
    plain = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
        return archive.getmembers()


@pytest.mark.parametrize("source", ["app/", "app", "./app//"])
def test_the_node_gets_the_folder_as_it_was(
    site: Site, packs: Packs, app: Path, node: FakeNode, *, source: str
) -> None:
    site.rest = {**site.rest, "artifacts": [artifact(source=source, dest=str(node.out / "app"))]}
    packs()
    ran = fetch(site, node)
    assert ran.code == 0, ran.err
    assert tree(node.out / "app") == tree(app)
    assert (node.out / "app/etc").is_dir()
    assert ran.artifact("app")["bytes_received"] == (site.output / ARCHIVE).stat().st_size
    assert fetch(site, node).artifact("app")["phase"] == "kept"


def test_a_thousand_small_files_come_as_one(site: Site, packs: Packs, node: FakeNode, served: Nginx) -> None:
    content = random.Random(1)
    folder = make(site.folder / "app", {f"d{n % 37}/f{n}": content.randbytes(n) for n in range(1000)})
    packs()
    ran = fetch(site, node)
    assert ran.code == 0, ran.err
    assert tree(node.out / "app") == tree(folder)
    assert len(served.asked()) == 1


def test_names_that_are_odd_stay_as_they_are(site: Site, packs: Packs, node: FakeNode) -> None:
    names = [
        " a b ",
        "-rf",
        "new\nline",
        "tab\t",
        "back\\slash",
        "100%",
        "#?*",
        "ü€😀",
        "e\u0301",
        "x" * 255,
        ".hidden",
        "a;b",
    ]
    deep = "/".join(["deeply nested"] * 40)
    content = {**{f"{name}/{name}": name for name in names}, f"{deep}/file": "deep", "ü-link": "-> ü€😀/ü€😀"}
    folder = make(site.folder / "app", content | {"long-link": f"-> {'x' * 255}/{'x' * 255}"})
    packs()
    ran = fetch(site, node)
    assert ran.code == 0, ran.err
    assert tree(node.out / "app") == tree(folder)


def test_a_folder_with_one_file_is_planned_as_such(packs: Packs, app: Path) -> None:
    shutil.rmtree(app)
    make(app, {"one.txt": b"12"})
    assert f"artifact  {app} (1 file, 2 bytes)" in packs("--dry-run")


def test_an_empty_folder_is_an_empty_folder(site: Site, packs: Packs, node: FakeNode) -> None:
    (site.folder / "app").mkdir()
    packs()
    assert fetch(site, node).code == 0
    assert list((node.out / "app").iterdir()) == []


def test_links_that_lead_nowhere_in_the_folder_are_kept(site: Site, packs: Packs, node: FakeNode) -> None:
    make(site.folder / "app", {"a/b/missing": "-> ../../later", "self": "-> .", "a/top": "-> .."})
    packs()
    assert fetch(site, node).code == 0
    assert tree(node.out / "app") == tree(site.folder / "app")


def test_modes_are_those_that_a_node_keeps(site: Site, packs: Packs, app: Path, node: FakeNode) -> None:
    modes = {"bin/run": 0o4775, "lib/data": 0o622, "lib/up": None, "lib": 0o2777, "etc": 0o700}
    for path, mode in modes.items():
        if mode is not None:
            (app / path).chmod(mode)
    packs()
    found = {member.name: member.mode for member in members(site)}
    assert found == {
        "bin": 0o755,
        "bin/also": 0o777,
        "bin/run": 0o755,
        "etc": 0o700,
        "lib": 0o755,
        "lib/data": 0o600,
        "lib/up": 0o777,
    }
    assert fetch(site, node).code == 0
    modes_there = {path: facts[0][-4:] for path, facts in tree(node.out / "app").items() if facts[0] != "link"}
    assert modes_there == {path: f"{mode:04o}" for path, mode in found.items() if mode != 0o777}


def test_owner_time_and_names_of_the_packing_machine_stay_out(site: Site, packs: Packs, app: Path) -> None:
    if os.geteuid() == 0:
        os.chown(app / "lib/data", 1234, 4321)
    packs()
    found = members(site)
    assert [member.name for member in found] == sorted(member.name for member in found)
    assert {(one.uid, one.gid, one.uname, one.gname) for one in found} == {(0, 0, "", "")}
    assert {one.mtime for one in found} == {315532800}
    assert not [one for one in found if one.pax_headers]


def test_it_is_listed_wherever_files_are(
    site: Site, packs: Packs, app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(path.stat().st_size for path in app.rglob("*") if path.is_file() and not path.is_symlink())
    url = f"{BASE}app.tar.zst"
    assert f"artifact  {app} (2 files, {size:,} bytes) as {url}" in packs("--dry-run")
    assert cli.main(site.command("--dry-run", "--json")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (planned,) = result["plan"]["artifacts"]
    assert planned == {"source": str(app), "names": ["app"], "files": 2, "size": size, "url": url, "chunks": None}
    summary = packs()
    assert ARCHIVE in summary
    assert url in summary
    outputs = site.manifest()["outputs"]
    assert isinstance(outputs, list)
    (entry,) = [one for one in outputs if one["path"] == ARCHIVE]
    assert entry["url"] == url
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=site.output, check=True, capture_output=True)
    assert f"{ARCHIVE}: OK".encode() in checked.stdout
    (one,) = told(site)
    assert one.digest is not None
    assert (one.urls, one.extract, one.source) == ((url,), "tar", None)
    assert (one.size, one.digest.hex) == (entry["size"], entry["sha256"])


def packed(site: Site, folder: Path, *, umask: str = "022") -> bytes:
    """The archive that a pack makes when `folder` is the site's folder."""
    shutil.rmtree(site.folder / "app", ignore_errors=True)
    folder.rename(site.folder / "app")
    command = [sys.executable, "-c", UMASK, umask, *site.command("--quiet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (site.output / ARCHIVE).read_bytes()


def test_the_same_content_and_modes_are_the_same_bytes(site: Site, app: Path) -> None:
    names = [f"many/{n:03}" for n in range(200)]
    make(app, dict.fromkeys(names, "content"))
    one = packed(site, app.rename(site.folder / "one"))
    other = site.folder / "other"
    umask = os.umask(0o002)  # new folders and files are writable by their group
    try:
        make(other, {**dict.fromkeys(reversed(names[1:]), "content"), **dict(reversed(APP.items()))})
    finally:
        os.umask(umask)
    os.link(other / names[1], other / names[0])
    (other / "bin/run").chmod(0o775)
    os.utime(other / "lib/data", (1, 1))
    assert packed(site, other, umask="077") == one
    third = shutil.copytree(site.folder / "app", site.folder / "third", symlinks=True)
    (third / "lib/data").write_bytes(b"\1" * 5000)
    assert packed(site, third) != one


def test_the_number_of_processors_changes_no_byte(site: Site, packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    site.rest = {"artifacts": [artifact()]}
    words = random.Random(3).randbytes(1 << 16)
    content = b"".join(words[n % 60000 : n % 60000 + 300] for n in range(0, 30 << 20, 300))
    make(site.folder / "app", {"large": content})
    archives = set()
    for count in (1, 2, 64, None):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        packs()
        archives.add((site.output / ARCHIVE).read_bytes())
    assert len(archives) == 1


def test_packed_again_it_is_the_same_layout(site: Site, packs: Packs, app: Path) -> None:
    packs()
    before = {path: path.read_bytes() for path in site.output.rglob("*") if path.is_file()}
    (app / "etc").touch()
    packs()
    assert {path: path.read_bytes() for path in site.output.rglob("*") if path.is_file()} == before


def test_it_moves_with_the_layout(site: Site, packs: Packs, app: Path, node: FakeNode, served: Nginx) -> None:
    site.pack = {"artifact_url": BASE}
    packs()
    assert cli.main(["relocate", str(site.output), "--artifact-url", served.url(f"/{EXPORTED}/")]) == 0
    ran = fetch(site, node)
    assert ran.code == 0, ran.err
    assert tree(node.out / "app") == tree(app)


def test_it_goes_when_the_agent_is_removed(site: Site, packs: Packs, app: Path) -> None:
    assert app.exists()
    packs()
    assert cli.main(["remove", str(site.output)]) == 0
    assert not (site.output / EXPORTED).exists()


def test_it_is_in_a_layout_that_is_an_archive(site: Site, packs: Packs, app: Path) -> None:
    assert app.exists()
    packs()
    content = (site.output / ARCHIVE).read_bytes()
    target = site.folder / "pxe.tar"
    packs("--format", "tar", "--output", target)
    with tarfile.open(target) as archive:
        held = archive.extractfile(ARCHIVE)
        assert held is not None
        assert held.read() == content


def test_one_folder_for_two_artifacts_is_one_archive(site: Site, packs: Packs, app: Path) -> None:
    assert app.exists()
    site.rest = {"artifacts": [artifact(), artifact("more", "../" + site.folder.name + "/app", extract="tar")]}
    packs()
    assert [path.name for path in (site.output / EXPORTED).iterdir()] == ["app.tar.zst"]
    one, other = told(site)
    assert (one.urls, one.digest, one.extract) == (other.urls, other.digest, other.extract)


def test_a_large_archive_comes_in_chunks(site: Site, packs: Packs, node: FakeNode) -> None:
    folder = make(site.folder / "app", {"noise": random.Random(5).randbytes(33 << 20), "small": "small"})
    assert "chunks" not in packs("--dry-run"), "how large it will be is not known yet"
    packs()
    assert sorted(path.name for path in (site.output / EXPORTED).iterdir()) == ["app.tar.zst", "app.tar.zst.chunks"]
    ran = fetch(site, node)
    assert ran.code == 0, ran.err
    assert "sha256 of each of its 9 chunks" in ran.err
    assert tree(node.out / "app") == tree(folder)


def test_an_archive_that_compression_made_small_has_no_chunks(site: Site, packs: Packs, app: Path) -> None:
    with (app / "zeros").open("wb") as file:
        file.truncate(40 << 20)
    packs()
    assert [path.name for path in (site.output / EXPORTED).iterdir()] == ["app.tar.zst"]
    (one,) = told(site)
    assert one.chunks is None


def test_chunks_can_be_had_and_declined(site: Site, packs: Packs, app: Path) -> None:
    site.rest = {"artifacts": [artifact(chunks={"size": "64KiB"})]}
    assert "in chunks of 64KiB" in packs("--dry-run")
    packs()
    (one,) = told(site)
    assert one.chunks is not None
    assert one.chunks.size == 64 * 1024
    (app / "noise").write_bytes(random.Random(5).randbytes(33 << 20))
    site.rest = {"artifacts": [artifact(chunks="none")]}
    packs()
    assert [path.name for path in (site.output / EXPORTED).iterdir()] == ["app.tar.zst"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_that_is_given_is_compared_with_the_archive(
    site: Site, packs: Packs, app: Path, capsys: pytest.CaptureFixture[str], algorithm: str
) -> None:
    packs()
    command = [f"{algorithm}sum", str(site.output / ARCHIVE)]
    right = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    site.rest = {"artifacts": [artifact(**{algorithm: right})]}
    packs()
    (app / "more").write_text("more")
    assert cli.main(site.command("--quiet")) == 2
    said = capsys.readouterr().err
    assert "error[source-digest]" in said
    assert f"the archive of {app} has" in said
