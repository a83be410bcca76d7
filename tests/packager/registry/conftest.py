"""Fixtures for the tests of registries."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes import registry as fake
from fakes.node import FakeNode
from fakes.registry import Registry
from fakes.server import Script, Server
from packing.mirroring import BODY, Mirroring
from packing.registries import LARGE, SMALL, Runs
from packing.site import Site
from pxe_pack import cli


@pytest.fixture(scope="package")
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
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes between attempts; time.sleep itself stays, which everything else here waits with."""
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def runs(capsys: pytest.CaptureFixture[str]) -> Runs:
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


@pytest.fixture(scope="package")
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


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.txt"
    file.write_bytes(SMALL)
    return file


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/models/m.bin": Script(body=BODY), "/n.bin": Script(body=b"second")}) as server:
        yield server


@pytest.fixture
def mirroring(tmp_path: Path, registry: Registry, node: FakeNode, request: pytest.FixtureRequest) -> Mirroring:
    """In a repository of its own for each test."""
    repository = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return Mirroring(tmp_path, f"{registry.place}/mirror/{repository}:v1", node)
