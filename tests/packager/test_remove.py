"""`pxe-pack remove`: what comes out has what the image had, whichever way the payload went in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from liveos import tiny
from packing import roots
from packing.site import Site, files_of, listed, take_out
from packing.trees import tree_of
from pxe_pack import cli, tools
from pxe_pack.image import liveos
from pxe_pack.inject import INJECTORS
from pxe_pack.inject.previous_payload import previous_payloads

Packs = Callable[..., str]
ROOT = "liveos/rootfs.img"


def same_files(image: Path, other: Path) -> None:
    """Names, attributes and contents; the boot catalog says at which sector the boot image lies."""
    before, after = files_of(image), files_of(other)
    assert {name: data for name, data in after.items() if name != "boot.catalog"} == {
        name: data for name, data in before.items() if name != "boot.catalog"
    }
    assert listed(other).keys() == listed(image).keys()


def ways(path: Path) -> list[str]:
    with liveos.opened(path, boot_url="") as image:
        return [one.how for one in previous_payloads(image)]


@pytest.mark.parametrize("how", ["updates", "rootfs"])
def test_an_iso_comes_back_with_the_files_it_had(site: Site, packs: Packs, how: str) -> None:
    packs("--inject", how)
    packed = site.iso.read_bytes()
    assert ways(site.iso) == [how]
    output = site.folder / "again.iso"
    assert cli.main(["remove", str(site.iso), "-o", str(output), "--quiet"]) == 0
    same_files(site.image, output)
    assert ways(output) == []
    assert site.iso.read_bytes() == packed
    report = ["xorriso", "-indev", str(output), "-report_el_torito", "plain"]
    assert "efiboot.img" in subprocess.run(report, check=True, capture_output=True, text=True).stdout
    assert not site.leftovers()


def test_a_root_filesystem_is_refused_and_no_iso_built_from_it(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "SEARCH_PATH", str(site.folder))  # no program that could build one
    root = roots.tar(site.folder / "root.tar", roots.inodes())
    assert cli.main(["remove", str(root), "-o", str(site.folder / "out.iso")]) == 2
    assert "error[remove-no-iso]" in capsys.readouterr().err


@pytest.mark.parametrize("how", INJECTORS)
def test_a_layout_boots_the_image_without_the_agent(site: Site, packs: Packs, how: str) -> None:
    (site.folder / "note.txt").write_text("carried\n")
    site.rest = {"artifacts": [{"name": "note", "source": "note.txt", "dest": "/srv/note.txt"}]}
    packs("--inject", how)
    before = (site.output / "boot/grub2/grub.cfg").read_bytes()
    url = "http://10.0.0.9/files/"
    assert cli.main(["relocate", str(site.output), "--artifact-url", url, "--quiet"]) == 0
    assert cli.main(["remove", str(site.output), "--quiet"]) == 0
    assert ways(site.output) == []
    same_files(site.image, site.iso)
    assert (site.output / "boot/initrd.img").read_bytes() == files_of(site.image)["boot/initrd.img"]
    assert (site.output / "boot/grub2/grub.cfg").read_bytes() == before
    assert not (site.output / "other-user-artifacts").exists()
    assert site.manifest()["inject"] is None
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=site.output, check=True)
    assert not site.leftovers()


def test_a_full_os_initrd_comes_back_byte_for_byte(site: Site, packs: Packs, tiny_full_os: Path) -> None:
    site.image = tiny_full_os
    site.pack = {"boot_url": None}
    packs()
    before = {path: path.read_bytes() for path in site.output.rglob("*") if path.is_file()}
    output = site.folder / "without"
    assert cli.main(["remove", str(site.output), "-o", str(output), "--quiet"]) == 0
    name = f"boot/initramfs-{tiny.RELEASE}.img"
    assert (output / name).read_bytes() == files_of(tiny_full_os)[name]
    assert {path: path.read_bytes() for path in site.output.rglob("*") if path.is_file()} == before


def test_files_of_the_users_stay(site: Site, packs: Packs, tmp_path: Path) -> None:
    mine = tmp_path / "motd"
    mine.write_text("hello\n")
    own = tmp_path / "own.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(own), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(mine), "/updates/etc/motd"], check=True, capture_output=True)
    site.image = own
    packs("--inject", "updates")
    assert cli.main(["remove", str(site.output), "--quiet"]) == 0
    assert files_of(site.iso) == files_of(own)


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda site: [str(site.image), "-o", str(site.folder / "x.iso")], "remove-nothing"),
        (lambda site: [str(site.iso)], "output-missing"),
        (lambda site: [str(site.iso), "-o", str(site.config)], "output-foreign"),
        (lambda site: [str(site.output), "-o", str(site.output / "inside")], "output-in-image"),
        (lambda site: [str(site.folder)], "layout-unreadable"),
    ],
)
def test_what_cannot_be_done_is_refused(
    site: Site,
    packs: Packs,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Site], list[str]],
    told: str,
) -> None:
    packs()
    before = sorted(site.folder.rglob("*"))
    assert cli.main(["remove", *prepare(site)]) == 2
    assert f"error[{told}]" in capsys.readouterr().err
    assert sorted(site.folder.rglob("*")) == before


def test_the_same_bytes_come_out_whatever_the_umask(site: Site, packs: Packs) -> None:
    packs("--inject", "rootfs")
    shutil.copytree(site.output, site.folder / "copy")
    before = os.umask(0o077)
    try:
        assert cli.main(["remove", str(site.folder / "copy"), "--quiet"]) == 0
    finally:
        os.umask(before)
    assert cli.main(["remove", str(site.output), "--quiet"]) == 0

    def content(folder: Path) -> dict[str, tuple[bytes, int]]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode) for path in files}

    assert content(site.output) == content(site.folder / "copy")


@pytest.mark.parametrize("what", ["pxe", "pxe/liveos.iso"])
def test_a_disk_without_room_for_the_original_is_told_before_it_is_full(site: Site, packs: Packs, what: str) -> None:
    packs()
    small = site.folder / "small"
    small.mkdir()
    remove = [sys.executable, "-m", "pxe_pack", "remove", str(site.folder / what), "-o", str(small / "out")]
    script = 'mount -t tmpfs -o size=2m tmpfs "$0" && "$@"; code=$?; ls -A "$0"; exit $code'
    command = ["unshare", "-Urm", "sh", "-c", script, str(small), *remove]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "error[disk-full]: removing the payload needs up to " in done.stderr
    assert f"bytes in {small}, but only " in done.stderr


def test_a_root_that_was_rewritten_loses_the_payload(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs", "--compressor", "zstd", "--level", "1")
    assert ways(site.output) == ["rootfs"]
    assert cli.main(["remove", str(site.output), "--quiet"]) == 0
    assert ways(site.output) == []
    before, after = (take_out(image, ROOT, tmp_path / image.name) for image in (site.image, site.iso))
    old, new = tree_of(before), tree_of(after)
    assert {path: inode for path, inode in new.items() if path in old} == old
    assert {new[path].kind for path in new.keys() - old.keys()} <= {"5"}, "folders that were made for it"
