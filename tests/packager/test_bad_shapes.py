"""What can be wrong with an image of each shape, and what can go wrong meanwhile: a sentence, nothing left."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import pytest

from liveos import pxedir, tiny
from packing import roots
from packing.bootloaders import debian
from packing.site import Site, files_of, make_iso

Refused = Callable[..., str]
Packs = Callable[..., str]
Given = Callable[[str], Path]

MEDIA = ("iso", "pxe-dir", "pxe-tar")
ROOTS = ("directory", "tar", "squashfs")


@pytest.fixture(autouse=True)
def installed(machine_root: Path) -> None:
    """Boot loaders on this machine: root filesystems have none."""
    debian(machine_root)


@pytest.fixture
def given(site: Site, tiny_pxe_dir: Path) -> Given:
    """An image of a shape, of the test's own."""

    def make(shape: str) -> Path:
        target = site.folder / "given"
        if shape == "iso":
            shutil.copyfile(site.image, target)
        elif shape == "pxe-dir":
            shutil.copytree(tiny_pxe_dir, target, copy_function=shutil.copyfile)
        elif shape == "pxe-tar":
            pxedir.archive(target, tiny_pxe_dir)
        else:
            {"directory": roots.folder, "tar": roots.tar, "squashfs": roots.squashfs}[shape](target, roots.inodes())
        site.image = target
        return target

    return make


def with_file(shape: str, image: Path, name: str, data: bytes) -> None:
    """Put a file into the image in the place of the one that it has."""
    if shape == "iso":
        files: dict[str, str | bytes] = {**files_of(image)}
        files.pop("boot/grub2/grub-pxe.cfg", None)
        make_iso(image, {**files, name: data})
    elif shape == "pxe-dir":
        (image / name).write_bytes(data)
    else:
        folder = image.with_name("unpacked")
        folder.mkdir()
        subprocess.run(["tar", "-xzf", image, "-C", folder], check=True)
        (folder / name).write_bytes(data)
        pxedir.archive(image, folder)
        shutil.rmtree(folder)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("shape", MEDIA)
@pytest.mark.parametrize("text", ["", "menuentry x { reboot }\n", "set timeout=3\nsource /boot/grub2/gone.cfg\n"])
def test_a_grub_cfg_without_an_entry_for_linux(refused: Refused, given: Given, shape: str, text: str) -> None:
    with_file(shape, given(shape), "boot/grub2/grub.cfg", text.encode())
    assert "no entry boots a LiveOS" in refused()


@pytest.mark.parametrize("shape", MEDIA)
def test_a_grub_cfg_that_ends_too_soon(refused: Refused, given: Given, shape: str) -> None:
    with_file(shape, given(shape), "boot/grub2/grub.cfg", b"menuentry x {\n")
    assert "error[grub-unsuitable]" in refused()


@pytest.mark.parametrize("shape", MEDIA)
def test_an_empty_initrd(refused: Refused, given: Given, shape: str) -> None:
    name = "boot/initrd.img" if shape == "iso" else f"boot/initramfs-{tiny.RELEASE}.img"
    with_file(shape, given(shape), name, b"")
    said = refused()
    assert "error[initrd-damaged]" in said
    assert "it is empty" in said


@pytest.mark.parametrize("shape", MEDIA)
def test_an_empty_kernel(refused: Refused, given: Given, shape: str) -> None:
    name = "boot/vmlinuz" if shape == "iso" else f"boot/vmlinuz-{tiny.RELEASE}"
    with_file(shape, given(shape), name, b"")
    assert f"error[kernel-empty]: the kernel {name}" in refused()


@pytest.mark.parametrize("shape", ["iso", "pxe-tar", "tar", "squashfs"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.9])
def test_a_file_that_ends_too_soon(refused: Refused, given: Given, shape: str, kept: float) -> None:
    image = given(shape)
    os.truncate(image, int(image.stat().st_size * kept))
    said = refused()
    references = ("image-truncated", "image-not-iso", "image-damaged", "squashfs-corrupt")
    assert any(f"error[{name}]" in said for name in references)


def test_a_folder_whose_iso_ends_too_soon(refused: Refused, given: Given) -> None:
    image = given("pxe-dir")
    os.truncate(image / pxedir.ISO, 100_000)
    assert "error[image-truncated]" in refused()


def test_an_empty_folder(refused: Refused, site: Site) -> None:
    site.image = site.folder / "nothing"
    site.image.mkdir()
    assert "error[image-no-grub]" in refused()


def test_links_in_a_root_filesystem_lead_where_they_lead_on_the_node(site: Site, packs: Packs, given: Given) -> None:
    """Whatever they name on this machine is not looked at, let alone taken."""
    root = given("directory")
    secret = site.folder / "secret"
    secret.write_text("of this machine\n")
    (root / "etc/linked").symlink_to(secret)
    (root / f"boot/vmlinuz-{tiny.RELEASE}").rename(root / "boot/kernel.real")
    (root / f"boot/vmlinuz-{tiny.RELEASE}").symlink_to("/boot/kernel.real")
    packs()
    kernel = (site.output / f"boot/vmlinuz-{tiny.RELEASE}").read_bytes()
    assert kernel == (root / "boot/kernel.real").read_bytes()
    assert b"of this machine" not in site.iso.read_bytes()


def test_a_kernel_that_is_a_link_out_of_the_root_filesystem(site: Site, refused: Refused, given: Given) -> None:
    root = given("directory")
    (site.folder / "kernel").write_bytes((root / f"boot/vmlinuz-{tiny.RELEASE}").read_bytes())
    (root / f"boot/vmlinuz-{tiny.RELEASE}").unlink()
    (root / f"boot/vmlinuz-{tiny.RELEASE}").symlink_to(site.folder / "kernel")
    assert "is not a regular file, or is empty" in refused()


def in_a_small_disk(site: Site, *, mount: str) -> subprocess.CompletedProcess[str]:
    """Pack onto a file system of its own; behind what was said stands what is left there."""
    target = site.folder / "small"
    target.mkdir(exist_ok=True)
    quoted = shlex.quote(str(target))
    pack = [sys.executable, "-m", "pxe_pack", *site.command("--quiet", "--output", target / "pxe")]
    script = f"mount -t tmpfs {mount.format(quoted)}; {shlex.join(pack)}; code=$?; ls -A {quoted} >&2; exit $code"
    return subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shape", [*MEDIA, *ROOTS])
def test_an_output_that_cannot_be_written(site: Site, given: Given, shape: str) -> None:
    before = state(given(shape))
    done = in_a_small_disk(site, mount="-o size=64m,ro tmpfs {}")
    assert done.returncode == 2, done.stderr
    assert "error[output-unwritable]" in done.stderr
    assert done.stderr.rstrip().endswith("--output")
    assert state(site.image) == before


@pytest.mark.parametrize("shape", ["pxe-tar", *ROOTS])
@pytest.mark.parametrize("inodes", [4, 8, 16])
def test_a_disk_that_is_full_in_the_middle(site: Site, given: Given, shape: str, inodes: int) -> None:
    """Full of inodes, for room for the bytes is looked at before."""
    before = state(given(shape))
    done = in_a_small_disk(site, mount=f"-o size=64m,nr_inodes={inodes} tmpfs {{}}")
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stderr.rstrip().splitlines()[-1].startswith(".pxe")
    assert state(site.image) == before


def test_a_disk_without_room_is_told_before_it_is_full(site: Site, given: Given) -> None:
    given("directory")
    done = in_a_small_disk(site, mount="-o size=1m tmpfs {}")
    assert done.returncode == 2, done.stderr
    assert "error[disk-full]" in done.stderr


STEPS = ("Compressing the root filesystem", "Building the ISO", "✓ Building the ISO", "Exporting the layout")


CUTS = [*((shape, STEPS[0]) for shape in ROOTS[1:]), *(("directory", at) for at in STEPS)]


@pytest.mark.parametrize(("shape", "at"), CUTS)
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_pack_of_a_root_filesystem_that_is_cut_off(
    site: Site, packs: Packs, given: Given, *, shape: str, at: str, by: signal.Signals
) -> None:
    before = state(given(shape))
    with site.start() as process:
        for line in cast("IO[bytes]", process.stderr):
            if line.decode().startswith(at):
                os.killpg(process.pid, by)
                break
        _, told = process.communicate()
    # 0: it was over before the signal came
    assert process.returncode in (130 if by == signal.SIGINT else -by, 0), told.decode()
    assert state(site.image) == before
    if by == signal.SIGINT:
        assert not site.leftovers()
    packs()
    assert not site.leftovers()
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=site.output, check=True)
