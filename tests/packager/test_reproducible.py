"""The same inputs give the same bytes, whoever packs, and however their session is set up."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from packing.site import Site

# Who packs: in a user namespace of its own, where there are no other privileges than those over it.
ROOT = ("unshare", "--user", "--map-root-user")
USER = ("unshare", "--user", "--map-user=1234", "--map-group=4321")


def packed(site: Site, who: tuple[str, ...], *, how: str, umask: str, **environment: str) -> dict[str, bytes]:
    """Path -> content, of what a pack of that person's writes; the sums and the modes among it."""
    pack = [sys.executable, "-m", "pxe_pack", *site.command("--quiet", "--inject", how)]
    command = [*who, "sh", "-c", f'umask {umask}; exec "$@"', "sh", *pack]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(site.output).as_posix(): path for path in site.output.rglob("*")}
    modes = "".join(f"{name} {path.stat().st_mode:o}\n" for name, path in sorted(files.items()))
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()} | {"modes": modes.encode()}


@pytest.mark.parametrize("how", ["updates", "rootfs", "initrd"])
def test_user_packs_the_bytes_that_root_does(site: Site, how: str) -> None:
    (site.folder / "model.bin").write_bytes(b"weights " * 1000)
    site.rest = {"artifacts": [{"name": "model", "source": "model.bin", "dest": "/srv/m.bin"}]}
    one = packed(site, ROOT, how=how, umask="022", TZ="UTC", LC_ALL="C", USER="root")
    (site.folder / "model.bin").touch()
    site.config.unlink()
    other = packed(site, USER, how=how, umask="077", TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", USER="someone")
    assert [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)] == []
