"""The Debian package, the wheel and the container image of a release: each packs on its own, and nodes boot the result.

Takes minutes: with --full only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from packing.bare import bare_system, digests, inside, packs
from packing.keys import key_pair
from pxe_release.deb import PYTHONS

ROOT = Path(__file__).resolve().parents[2]
BUILD, LOCKS = ROOT / "release/build", ROOT / "release"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a system of its own")


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest, commit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a release."""
    if not request.config.getoption("--full"):
        pytest.skip("takes minutes: --full")
    if given := request.config.getoption("--release"):
        return Path(given).absolute()
    folder = tmp_path_factory.mktemp("packages")
    command: list[str | Path] = [BUILD, "--container", "--commit", commit, "-o", folder]
    subprocess.run(command, check=True)
    return folder


INSTALLS = """
python3 -m venv /opt/pxe-pack && cd /opt/pxe-pack/bin &&
./pip install --quiet --no-index --find-links /root/{libraries} '/root/{wheel}[squashfs,serve]' &&
ln -s /opt/pxe-pack/bin/pxe-pack /opt/pxe-pack/bin/pxe-pack-collector /usr/bin/
"""
CHECKS_AND_SERVES = """
cd /root && pxe-pack check --offline pxe >&2 || exit 1
ip link set lo up
pxe-pack serve pxe --unprivileged >serve.log 2>&1 &
for _ in $(seq 120); do grep -q Ctrl-C serve.log && break; sleep 0.5; done
cat serve.log
python3.13 -c '
from urllib.request import urlopen
print(len(urlopen("http://127.0.0.1:8080/images/liveos.iso").read()))' && kill $!
"""


def boots(layout: Path) -> None:
    """Boot a node with the layout, by this pxe-pack: it has to be done."""
    command: list[str | Path] = [sys.executable, "-m", "pxe_pack", "boot", layout, "--json", "--timeout", "900"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = [one for line in done.stdout.splitlines() if (one := json.loads(line))["event"] == "result"]
    node = result["node"]
    assert (node["phase"], [one["name"] for one in node["artifacts"]]) == ("done", ["note"])


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def by_package(packages: Path, suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare system that has packed with the Debian package."""
    root = tmp_path_factory.mktemp(f"package-{suite}") / "root"
    (package,) = packages.glob("*.deb")
    bare_system(root, suite=suite, packages=[f"/root/{package.name}"], files=[package])
    assert "the agent" in packs(root)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel asks a package index for, exactly as it is locked, for the Pythons of both systems."""
    folder = tmp_path_factory.mktemp("libraries")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    locked = ("--no-deps", "--require-hashes", "--requirement")
    subprocess.run([*pip, "wheel", *locked, LOCKS / "source.lock", "--wheel-dir", folder], check=True)
    for python in PYTHONS:
        chosen = ("--only-binary", ":all:", "--python-version", python, "--dest", folder)
        subprocess.run([*pip, "download", *locked, LOCKS / "runtime.lock", *chosen], check=True)
    return folder


def test_the_debian_package_packs_on_a_bare_system_and_leaves_nothing(by_package: Path, suite: str) -> None:
    if suite == "bookworm":
        boots(by_package / "root/pxe")
    subprocess.run(["chroot", by_package, "dpkg", "--remove", "pxe-pack"], check=True)
    assert not (by_package / "usr/lib/pxe-pack").exists()


def test_the_wheel_packs_on_a_bare_system_without_an_index_what_the_package_packs(
    packages: Path, by_package: Path, libraries: Path, suite: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (package,), (wheel,) = packages.glob("*.deb"), packages.glob("*.whl")
    shown = subprocess.run(["dpkg-deb", "--field", package, "Depends"], capture_output=True, text=True, check=True)
    tools = [one for one in shown.stdout.strip().split(", ") if not one.startswith("python")]
    bare_system(root, suite=suite, packages=["python3-venv", *tools], files=[wheel, libraries])
    inside(root, INSTALLS.format(wheel=wheel.name, libraries=libraries.name))
    assert "the agent" in packs(root)
    assert digests(root) == digests(by_package)
    if suite == "trixie":
        boots(root / "root/pxe")
    shutil.rmtree(root)


@pytest.fixture
def layout(packages: Path, tmp_path: Path) -> Iterator[Path]:
    """The container image as an OCI layout."""
    (image,) = packages.glob("*.oci.tar")
    with tarfile.open(image) as archive:
        archive.extractall(tmp_path / "layout")  # noqa: S202  made above
    yield tmp_path / "layout"
    shutil.rmtree(tmp_path / "layout")


def test_the_container_image_is_what_others_read_and_packs(layout: Path, tmp_path: Path) -> None:
    shown = subprocess.run(["skopeo", "inspect", "--config", f"oci:{layout}"], capture_output=True, check=True)
    config = json.loads(shown.stdout)
    assert config["config"]["Entrypoint"] == ["/usr/bin/pxe-pack"]
    subprocess.run(["skopeo", "copy", f"oci:{layout}", f"dir:{tmp_path}/copy"], capture_output=True, check=True)
    digest = json.loads((tmp_path / "copy/manifest.json").read_text())["layers"][0]["digest"].partition(":")[2]
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-x", "-p", "-z", "-f", tmp_path / "copy" / digest, "-C", root], check=True)
    assert "the agent" in packs(root)
    size = (root / "root/pxe/liveos.iso").stat().st_size
    assert inside(root, CHECKS_AND_SERVES).splitlines()[-1] == str(size)
    for program in ("dnsmasq", "nginx", "minisign", "osslsigncode"):
        assert any((root / folder / program).exists() for folder in ("usr/bin", "usr/sbin")), program


def test_the_debian_package_is_the_same_each_time(packages: Path, commit: str, tmp_path: Path) -> None:
    keys = key_pair(tmp_path)
    (wheel,) = packages.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        agents = [Path(name).name for name in archive.namelist() if name.startswith("pxe_pack/agents/")]
    machines = [word for name in agents for word in ("--arch", name.partition("-")[0])]
    command: list[str | Path] = [BUILD, *machines, "--commit", commit, "--sign", keys.secret, "-o", tmp_path / "again"]
    subprocess.run(command, check=True, umask=0o077)
    (one,), (other,) = packages.glob("*.deb"), (tmp_path / "again").glob("*.deb")
    assert one.read_bytes() == other.read_bytes()
