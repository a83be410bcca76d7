"""The same inputs give the same bytes, for every user and in every session."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile

import pytest

from packing.folders import artifact, make
from packing.site import Site
from pxe_pack import cli

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
    make(site.folder / "app", {"bin/run": "#!/bin/sh", "bin/also": "-> run", "ü/empty/": None})
    site.rest = {"artifacts": [{"name": "model", "source": "model.bin", "dest": "/srv/m.bin"}, artifact()]}
    one = packed(site, ROOT, how=how, umask="022", TZ="UTC", LC_ALL="C", USER="root")
    for path in ("model.bin", "app/bin/run", "app"):
        (site.folder / path).touch()
    site.config.unlink()
    other = packed(site, USER, how=how, umask="077", TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", USER="someone")
    assert [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)] == []


def archive_of(site: Site, who: tuple[str, ...], *, umask: str) -> bytes:
    target = site.folder / "pxe.tar"
    pack = [sys.executable, "-m", "pxe_pack", *site.command("--quiet", "--format", "tar", "--output", target)]
    command = [*who, "sh", "-c", f'umask {umask}; exec "$@"', "sh", *pack]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [path.name for path in site.folder.iterdir() if ".pxe-pack-" in path.name]
    return target.read_bytes()


def test_archive_has_the_layout_in_it_and_is_the_same_for_every_user(site: Site) -> None:
    one = archive_of(site, ROOT, umask="022")
    assert one == archive_of(site, USER, umask="077"), "a former one is replaced"
    assert cli.main(site.command("--quiet")) == 0
    unpacked = site.folder / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-C", unpacked, "-xpf", site.folder / "pxe.tar"], check=True)
    assert not subprocess.run(["diff", "-r", unpacked, site.output], capture_output=True, check=True).stdout
    modes = {path.stat().st_mode for path in unpacked.rglob("*")}
    assert modes == {0o100644, 0o40755}


def test_archive_replaces_nothing_that_pxe_pack_did_not_write(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    target = site.folder / "pxe.tar"
    with tarfile.open(target, "w") as tar:
        tar.add(site.image, arcname="liveos.iso")
    before = target.read_bytes()
    assert cli.main(site.command("--quiet", "--format", "tar", "--output", target)) == 2
    assert "error[output-foreign]" in capsys.readouterr().err
    assert target.read_bytes() == before
    (site.folder / "folder").mkdir()
    assert cli.main(site.command("--quiet", "--format", "tar", "--output", site.folder / "folder")) == 2
