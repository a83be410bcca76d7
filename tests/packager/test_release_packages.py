"""The Debian package and the container image of a release: each packs on its own, and a node boots what it packed.

Takes minutes: with --full only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from liveos import shapes
from packing.keys import key_pair
from packing.site import Site
from pxe_pack.freeze.environment import debian_mirrors

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "release/build"
BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a system of its own")


@pytest.fixture(scope="module")
def commit() -> str:
    """What is released: HEAD, which may move meanwhile."""
    command: list[str | Path] = ["git", "-C", ROOT, "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


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


PACKS = """
! command -v gcc && ! command -v mmdebstrap && cd /root && pxe-pack --quiet pack fetch.yaml >&2 &&
(cd pxe && sha256sum --quiet -c SHA256SUMS) >&2 && pxe-pack show pxe &&
pxe-pack-collector --help >/dev/null
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


def inside(root: Path, script: str) -> str:
    """Run `script` in the system at `root`, without a network; its output."""
    mounted = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$@"'
    command = ("unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", mounted, "sh", root, "sh", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=BARE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packs(root: Path, site: Site) -> str:
    """Pack the quickstart's image and a file in the system at `root`; what `show` says of the layout."""
    shutil.copy(shapes.cached(shapes.SHAPES["ic08"]), root / "root/liveos.iso")
    (root / "root/note.txt").write_text("fetched by the node\n")
    site.image = Path("liveos.iso")
    site.rest = {"artifacts": [{"name": "note", "source": "note.txt", "dest": "/srv/note.txt"}]}
    site.write_config()
    shutil.copy(site.config, root / "root/fetch.yaml")
    return inside(root, PACKS)


def boots(layout: Path) -> None:
    """Boot a node with the layout, by this pxe-pack: it has to be done."""
    command: list[str | Path] = [sys.executable, "-m", "pxe_pack", "boot", layout, "--json", "--timeout", "900"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = [one for line in done.stdout.splitlines() if (one := json.loads(line))["event"] == "result"]
    node = result["node"]
    assert (node["phase"], [one["name"] for one in node["artifacts"]]) == ("done", ["note"])


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_debian_package_packs_on_a_bare_system_and_leaves_nothing(
    packages: Path, site: Site, tmp_path: Path, suite: str
) -> None:
    root = tmp_path / "root"
    (package,) = packages.glob("*.deb")
    install = f"apt-get -q --yes --no-install-recommends install /root/{package.name}"
    hooks = (f"copy-in {package} /root", f'chroot "$1" {install}')
    command = ["mmdebstrap", "--quiet", "--variant=apt", *(f"--customize-hook={hook}" for hook in hooks)]
    subprocess.run([*command, suite, str(root), *debian_mirrors(suite)], check=True)
    assert "the agent" in packs(root, site)
    if suite == "bookworm":
        boots(root / "root/pxe")
    subprocess.run(["chroot", root, "dpkg", "--remove", "pxe-pack"], check=True)
    assert not (root / "usr/lib/pxe-pack").exists()


@pytest.fixture
def layout(packages: Path, tmp_path: Path) -> Iterator[Path]:
    """The container image as an OCI layout."""
    (image,) = packages.glob("*.oci.tar")
    with tarfile.open(image) as archive:
        archive.extractall(tmp_path / "layout")  # noqa: S202  made above
    yield tmp_path / "layout"
    shutil.rmtree(tmp_path / "layout")


def test_the_container_image_is_what_others_read_and_packs(layout: Path, site: Site, tmp_path: Path) -> None:
    shown = subprocess.run(["skopeo", "inspect", "--config", f"oci:{layout}"], capture_output=True, check=True)
    config = json.loads(shown.stdout)
    assert config["config"]["Entrypoint"] == ["/usr/bin/pxe-pack"]
    subprocess.run(["skopeo", "copy", f"oci:{layout}", f"dir:{tmp_path}/copy"], capture_output=True, check=True)
    digest = json.loads((tmp_path / "copy/manifest.json").read_text())["layers"][0]["digest"].partition(":")[2]
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-x", "-p", "-z", "-f", tmp_path / "copy" / digest, "-C", root], check=True)
    assert "the agent" in packs(root, site)
    size = (root / "root/pxe/liveos.iso").stat().st_size
    assert inside(root, CHECKS_AND_SERVES).splitlines()[-1] == str(size)
    for program in ("dnsmasq", "nginx", "minisign", "osslsigncode"):
        assert any((root / folder / program).exists() for folder in ("usr/bin", "usr/sbin")), program


def test_the_debian_package_is_the_same_each_time(packages: Path, commit: str, tmp_path: Path) -> None:
    keys = key_pair(tmp_path)
    command: list[str | Path] = [
        BUILD,
        "--commit",
        commit,
        "--sign",
        keys.secret,
        "-o",
        tmp_path / "again",
    ]
    subprocess.run(command, check=True, umask=0o077)
    (one,), (other,) = packages.glob("*.deb"), (tmp_path / "again").glob("*.deb")
    assert one.read_bytes() == other.read_bytes()
