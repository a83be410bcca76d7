from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.node import FakeNode
from liveos import shapes
from packing.checking import Checked, checker
from packing.keys import KeyPair, key_pair
from packing.pins import Pins
from packing.site import Site, small_agent
from pxe_pack import cli, loaders


@pytest.fixture(scope="session")
def commit() -> str:
    """What is released: HEAD, which may move meanwhile."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A node without `pxe-fetch.` arguments on its kernel command line."""
    node = FakeNode(folder=tmp_path / "node")
    node.boot_with("quiet")
    return node


@pytest.fixture(scope="session")
def tiny() -> Path:
    """A LiveOS ISO that does not boot and is right in structure: grub-pxe.cfg, gzip. Shared: not to be written to."""
    return shapes.cached(shapes.SHAPES["tiny"])


@pytest.fixture(scope="session")
def tiny_guarded() -> Path:
    """Another: no grub-pxe.cfg, guards, names with versions, upper case, zstd."""
    return shapes.cached(replace(shapes.SHAPES["ic16"], contents="tiny"))


@pytest.fixture(scope="session")
def tiny_ext4() -> Path:
    """One whose squashfs holds an ext4."""
    return shapes.cached(shapes.SHAPES["ext4"])


@pytest.fixture(scope="session")
def tiny_pxe_dir() -> Path:
    """A pxe-dir with such an ISO in it, as Image Customizer from 0.16 on writes it."""
    return shapes.cached(replace(shapes.SHAPES["pxe-dir"], contents="tiny"))


@pytest.fixture(scope="session")
def tiny_full_os() -> Path:
    """An ISO whose initrd is the root filesystem."""
    return shapes.cached(replace(shapes.SHAPES["full-os"], contents="tiny"))


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_agent(tmp_path_factory.mktemp("agent") / "pxe-fetch")


@pytest.fixture(autouse=True)
def machine_root(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder where this machine's boot loaders are looked for, so that what is installed decides nothing."""
    root = tmp_path_factory.mktemp("machine")
    monkeypatch.setattr(loaders, "ROOT", root)
    return root


@pytest.fixture
def site(tmp_path: Path, tiny: Path, agent: Path) -> Site:
    return Site(folder=tmp_path, image=tiny, agent=agent)


@pytest.fixture
def packs(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Pack at the site with further arguments; gives what stdout got. The exit code has to be 0."""

    def run(*arguments: str | Path) -> str:
        code = cli.main(site.command("--quiet", *arguments))
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def refused(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Pack at the site what cannot be packed; gives what stderr got. Exit code 2, and nothing may be left behind."""

    def run(*arguments: str | Path) -> str:
        command = site.command("--quiet", *arguments)
        before = sorted(site.folder.rglob("*"))
        code = cli.main(command)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert sorted(site.folder.rglob("*")) == before
        assert "Traceback" not in captured.err
        return captured.err

    return run


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Callable[..., Checked]:
    """Check something; asks no server unless told to."""
    return checker(capsys)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def pins(site: Site, packs: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> Pins:
    site.rest["serial"] = 5
    packs()
    made = Pins(site=site, capsys=capsys)
    made.write()
    return made


@pytest.fixture
def trusting(site: Site, packs: Callable[..., str], keys: KeyPair, capsys: pytest.CaptureFixture[str]) -> Pins:
    """The same with a public key in the image."""
    site.rest["serial"] = 5
    packs("--trust", keys.public)
    made = Pins(site=site, capsys=capsys)
    made.write()
    return made


@pytest.fixture
def snippet(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `pxe-pack snippet` prints with the arguments. The exit code has to be 0."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        code = cli.main(["snippet", *map(str, arguments)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run
