"""A release: built from a commit, the same each time, and packing with nothing but what it carries."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packing.keys import key_pair
from packing.site import Site
from pxe_fetch import __version__
from pxe_pack.freeze import FrozenAgent, load_agent, ready

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "release/build"
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made of a commit")


@dataclass(frozen=True)
class Release:
    folder: Path
    said: str  # what release/build wrote to stdout

    def file(self, pattern: str) -> Path:
        (found,) = self.folder.glob(pattern)
        return found


def built(folder: Path, *options: str | Path, commit: str, umask: int) -> Release:
    """A release without the parts that take minutes."""
    command: list[str | Path] = [BUILD, "--no-deb", "--commit", commit, "-o", folder, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, umask=umask)
    assert done.returncode == 0, done.stderr
    return Release(folder, done.stdout)


@pytest.fixture(scope="module")
def release(commit: str, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return built(tmp_path_factory.mktemp("release"), commit=commit, umask=0o022)


@pytest.fixture
def installed(release: Release, tmp_path: Path) -> Path:
    """The wheel, installed as pip does it for pure Python, in a folder."""
    folder = tmp_path / "installed"
    with zipfile.ZipFile(release.file("*.whl")) as wheel:
        wheel.extractall(folder)  # noqa: S202  made above
    return folder


def alone(installed: Path, *words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run an installation without a network, and without mmdebstrap, a compiler or this user's cache."""
    programs = home / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    for folder in ("/usr/bin", "/usr/sbin"):
        for program in Path(folder).iterdir():
            if not re.search("mmdebstrap|gcc|cc$|^ld|pip", program.name) and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    environment = {"PATH": str(programs), "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(home / "cache")}
    seal = "import pxe_pack.tools as t, os, sys; t.SEARCH_PATH = os.environ['PATH']\n"
    start = f"{seal}from pxe_pack.__main__ import main; sys.exit(main())"
    command: list[str | Path] = ["unshare", "--map-root-user", "--net", sys.executable, "-c", start, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def packing(site: Site) -> list[str]:
    return [word for word in site.command() if word not in {"--agent", str(site.agent)}]


def carried(release: Release, folder: Path) -> FrozenAgent:
    """The agent in a release's wheel."""
    with zipfile.ZipFile(release.file("*.whl")) as wheel:
        (name,) = [name for name in wheel.namelist() if name.startswith("pxe_pack/agents/")]
        wheel.extract(name, folder)
    return load_agent(ready.unpack(folder / name, folder))


def test_the_same_commit_gives_the_same_bytes_whatever_the_umask(release: Release, commit: str, tmp_path: Path) -> None:
    keys = key_pair(tmp_path)
    again = built(tmp_path / "again", "--sign", keys.secret, commit=commit, umask=0o077)
    files = {file.name: file.read_bytes() for file in release.folder.iterdir()}
    others = {file.name: file.read_bytes() for file in again.folder.iterdir()}
    signature = others.pop("SHA256SUMS.minisig")
    assert {name: hashlib.sha256(data).hexdigest() for name, data in others.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert b"trusted comment: pxe-pack " in signature
    verify: list[str | Path] = ["minisign", "-V", "-p", keys.public, "-m", again.folder / "SHA256SUMS"]
    subprocess.run(verify, check=True, capture_output=True)


def test_the_checksums_name_every_file(release: Release) -> None:
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=release.folder, check=True)
    listed = {line.split()[1] for line in (release.folder / "SHA256SUMS").read_text().splitlines()}
    assert listed | {"SHA256SUMS"} == {file.name for file in release.folder.iterdir()}


def test_the_build_says_what_it_made_of_which_commit(release: Release, commit: str, tmp_path: Path) -> None:
    first, *others = release.said.splitlines()
    assert first == f"pxe-pack {__version__} of commit {commit}, in {release.folder}:"
    assert {f"{file.stat().st_size:,}  {file.name}" for file in release.folder.iterdir()} <= {*map(str.strip, others)}
    words = " ".join(release.said.split())
    assert {str(one) for one in carried(release, tmp_path).components if str(one) not in words} == set()


def test_the_source_distribution_has_every_file_of_the_commit(release: Release, commit: str) -> None:
    command: list[str | Path] = ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", commit]
    committed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    with tarfile.open(release.file("*.tar.gz")) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers()}
    assert len(committed) > 500
    assert set(committed) - names == set()


def test_the_wheel_can_be_built_again_from_the_source_distribution(release: Release, tmp_path: Path) -> None:
    with tarfile.open(release.file("*.tar.gz")) as sdist:
        epoch = max(member.mtime for member in sdist.getmembers())
        # The documented way to name a filter to a Python that may not know them (3.11.2).
        sdist.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        sdist.extractall(tmp_path)  # noqa: S202  made above
    (folder,) = tmp_path.iterdir()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        tmp_path / "wheel",
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(int(epoch))}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    assert wheel.read_bytes() == release.file("*.whl").read_bytes()


def test_the_installed_wheel_packs_without_a_network_or_a_compiler(
    release: Release, installed: Path, site: Site
) -> None:
    done = alone(installed, *packing(site), "--inject", "updates", home=site.folder / "home")
    assert done.returncode == 0, done.stderr
    shown = alone(installed, "show", site.output, home=site.folder / "home")
    agent = carried(release, site.folder / "carried")
    versions = {one.name: one.version for one in agent.components}
    words = " ".join(shown.stdout.split())
    assert f"Python {versions['Python']}, OpenSSL {versions['OpenSSL']}" in words
    assert {f"{name} {version}" for name, version in versions.items() if f"{name} {version}" not in words} == set()
    agent_of = site.manifest()["agent"]
    assert isinstance(agent_of, dict)
    assert agent_of["digest"] == agent.digest


def test_an_installation_that_was_changed_freezes_its_own_agent(installed: Path, site: Site) -> None:
    with (installed / "pxe_fetch/run.py").open("a") as file:
        file.write("# changed\n")
    done = alone(installed, *packing(site), home=site.folder / "home")
    assert done.returncode == 2, done.stderr
    assert "mmdebstrap is required to freeze the agent" in done.stderr


def test_a_damaged_archive_is_named_with_what_to_do(installed: Path, site: Site) -> None:
    (archive,) = (installed / "pxe_pack/agents").iterdir()
    archive.write_bytes(archive.read_bytes()[:-1000])
    done = alone(installed, *packing(site), home=site.folder / "home")
    assert done.returncode == 1, done.stderr
    assert "error[agent-archive-damaged]" in done.stderr
    assert archive.name in done.stderr
    assert "pxe-pack freeze -o DIR" in done.stderr


def test_the_bill_of_materials_names_what_was_frozen_and_what_is_imported(release: Release, tmp_path: Path) -> None:
    text = release.file("*.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    frozen = next(one for one in document["components"] if one["name"] == "pxe-fetch")
    agent = carried(release, tmp_path)
    assert {(one["name"], one["version"], one["purl"]) for one in frozen["components"]} == {
        (one.name, one.version, one.purl) for one in agent.components
    }
    named = {canonicalize_name(one["name"]) for one in document["components"]}
    assert {canonicalize_name(one.name) for one in requirements(release, extras=("", "serve", "squashfs"))} <= named


def requirements(release: Release, *, extras: Sequence[str]) -> list[Requirement]:
    """What the wheel asks a package index for, with any of these extras."""
    with zipfile.ZipFile(release.file("*.whl")) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        found = [Requirement(one) for one in re.findall(r"(?m)^Requires-Dist: (.*)$", wheel.read(metadata).decode())]
    wanted = [one for one in found if not one.marker or any(one.marker.evaluate({"extra": name}) for name in extras)]
    assert len(wanted) > 15
    return wanted


def test_a_release_is_not_mixed_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    command: list[str | Path] = [BUILD, "-o", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
