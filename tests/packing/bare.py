"""Bare Debian systems of their own: what is installed there brings what it needs, or it does not work."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from liveos import shapes
from packing.site import Site
from pxe_pack.freeze.environment import debian_mirrors

_BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
_PACKS = """
! command -v gcc && ! command -v mmdebstrap && cd /root && pxe-pack --quiet pack fetch.yaml >&2 &&
(cd pxe && sha256sum --quiet -c SHA256SUMS) >&2 && pxe-pack show pxe &&
pxe-pack-collector --help >/dev/null
"""


def bare_system(root: Path, *, suite: str, packages: Sequence[str] = (), files: Sequence[Path] = ()) -> None:
    """Make a Debian in the folder `root`, which has the `packages` and, in /root, copies of the `files`.

    A package may be the path of one of the files there.
    """
    install = f"apt-get -q --yes --no-install-recommends install {' '.join(packages)}"
    hooks = [f"copy-in {file} /root" for file in files] + [f'chroot "$1" {install}']
    command = ["mmdebstrap", "--quiet", "--variant=apt", *(f"--customize-hook={hook}" for hook in hooks)]
    subprocess.run([*command, suite, str(root), *debian_mirrors(suite)], check=True)


def inside(root: Path, script: str) -> str:
    """Run `script` in the system at `root`, without a network; its output."""
    mounted = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$@"'
    command = ("unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", mounted, "sh", root, "sh", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_BARE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packs(root: Path) -> str:
    """Pack the quickstart's image and a file in the system at `root`; what `show` says of the layout /root/pxe."""
    home = root / "root"
    shutil.copy(shapes.cached(shapes.SHAPES["ic08"]), home / "liveos.iso")
    (home / "note.txt").write_text("fetched by the node\n")
    artifact = {"name": "note", "source": "note.txt", "dest": "/srv/note.txt"}
    Site(folder=home, image=Path("liveos.iso"), agent=Path(), rest={"artifacts": [artifact]}).write_config()
    return inside(root, _PACKS)


def digests(root: Path) -> Mapping[str, str]:
    """The digest of each file of the layout that `packs` made, by path."""
    lines = (root / "root/pxe/SHA256SUMS").read_text().splitlines()
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}
