"""What the fixture images promise: the shapes differ as told, nothing is lost on the way in, and builds repeat."""

import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from liveos import shapes, specials
from liveos.cache import Cache
from liveos.shapes import SHAPES, Shape

BUILD = Path(__file__).parent / "build"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def paths(iso: Path) -> set[str]:
    """The files in an ISO, by their paths."""
    listed = subprocess.run(
        ["xorriso", "-indev", iso, "-find", "/", "-type", "f", "-exec", "echo"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {line.strip("'/") for line in listed.stdout.splitlines()}


def extract(iso: Path, path: str, *, to: Path) -> Path:
    """One file of an ISO."""
    subprocess.run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", path, to], check=True, capture_output=True)
    return to


def members(squashfs: Path) -> Iterator[tarfile.TarInfo]:
    """The inodes of a squashfs, as another program than the one that wrote it reads them."""
    with (
        subprocess.Popen(["sqfs2tar", squashfs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader,
        tarfile.open(fileobj=reader.stdout, mode="r|") as archive,
    ):
        yield from archive


def test_an_ic08_image_has_a_pxe_configuration_and_plain_names(cache: Cache) -> None:
    assert paths(shapes.cached(replace(SHAPES["ic08"], contents="tiny"), cache=cache)) >= {
        "efi/boot/bootx64.efi", "efi/boot/grubx64.efi", "boot/grub2/grub.cfg", "boot/grub2/grub-pxe.cfg",
        "boot/grub2/grubenv", "boot/grub2/efiboot.img", "boot/vmlinuz", "boot/initrd.img", "liveos/rootfs.img",
        "azl-image-customizer/saved-configs.yaml",
    }  # fmt: skip


def test_an_ic16_image_has_none_and_names_its_kernel(cache: Cache, tmp_path: Path) -> None:
    image = shapes.cached(replace(SHAPES["ic16"], contents="tiny"), cache=cache)
    found = paths(image)
    assert found >= {"EFI/BOOT/BOOTX64.EFI", "boot/vmlinuz-6.6.104-1.azl3", "boot/initramfs-6.6.104-1.azl3.img"}
    assert "boot/grub2/grub-pxe.cfg" not in found
    superblock = extract(image, "/liveos/rootfs.img", to=tmp_path / "rootfs.img").read_bytes()[:96]
    assert int.from_bytes(superblock[12:16], "little") == 256 << 10
    assert int.from_bytes(superblock[20:22], "little") == 6  # zstd


def test_every_special_inode_is_in_the_squashfs(cache: Cache, tmp_path: Path) -> None:
    image = extract(shapes.cached(SHAPES["tiny"], cache=cache), "/liveos/rootfs.img", to=tmp_path / "rootfs.img")
    found = {member.name: member for member in members(image)}
    for wanted in specials.inodes():
        member = found[wanted.path]
        assert member.type == wanted.kind, wanted.path
        if member.islnk():
            continue
        assert (member.uid, member.gid, member.linkname) == (wanted.uid, wanted.gid, wanted.target), wanted.path
        assert (member.devmajor, member.devminor) == wanted.device, wanted.path
        if not member.issym():
            assert member.mode == wanted.mode, wanted.path
        assert member.size == len(wanted.data), wanted.path
        values = {name: text.encode("utf-8", "surrogateescape") for name, text in member.pax_headers.items()}
        assert {name.removeprefix("SCHILY.xattr."): value for name, value in values.items() if "xattr" in name} == (
            wanted.xattrs
        ), wanted.path


def test_an_ext4_image_is_sound_and_keeps_owners_and_devices(cache: Cache, tmp_path: Path) -> None:
    outer = extract(shapes.cached(SHAPES["ext4"], cache=cache), "/liveos/rootfs.img", to=tmp_path / "outer.img")
    subprocess.run(["unsquashfs", "-quiet", "-dest", tmp_path / "out", outer], check=True, capture_output=True)
    ext4 = tmp_path / "out/LiveOS/rootfs.img"
    subprocess.run(["/sbin/e2fsck", "-fn", ext4], check=True, capture_output=True)
    for path, wanted in {"odd-owner": "User: 64242", "block-device": "block special", "setuid": "Mode:  04755"}.items():
        stat = ["/sbin/debugfs", "-R", f"stat /{specials.FOLDER}/{path}", str(ext4)]
        assert wanted in subprocess.run(stat, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_a_full_os_initrd_holds_the_whole_system(
    cache: Cache, tmp_path: Path, compressor: Literal["gzip", "zstd"]
) -> None:
    image = shapes.cached(replace(SHAPES["full-os"], contents="tiny", compressor=compressor), cache=cache)
    assert not [path for path in paths(image) if path.startswith("liveos/")]
    initrd = extract(image, "/boot/initramfs-6.6.104-1.azl3.img", to=tmp_path / "initrd.img")
    unpacked = subprocess.run([compressor, "-dc", initrd], check=True, capture_output=True).stdout
    listed = subprocess.run(["cpio", "-tvn", "--quiet"], input=unpacked, check=True, capture_output=True).stdout
    lines = {line.split()[-1]: line.split() for line in os.fsdecode(listed).splitlines() if " -> " not in line}
    for wanted in specials.inodes():
        if wanted.kind == tarfile.SYMTYPE or " " in wanted.path or not wanted.path.isascii():
            continue
        mode, links, uid, gid, *_ = lines[wanted.path]
        kind = (
            "-"
            if wanted.kind == tarfile.LNKTYPE
            else {b"3": "c", b"4": "b", b"5": "d", b"6": "p"}.get(wanted.kind, "-")
        )
        assert mode == kind + stat.filemode(wanted.mode)[1:], wanted.path
        assert (uid, gid) == (str(wanted.uid), str(wanted.gid)), wanted.path
        assert links == ("2" if "hardlink" in wanted.path or kind == "d" else "1"), wanted.path
    assert lines[f"{specials.FOLDER}/block-device"][4:6] == ["7,", "200"]
    assert "init -> usr/lib/systemd/systemd" in os.fsdecode(listed)
    take_out = ["cpio", "-i", "--quiet", "--to-stdout", f"{specials.FOLDER}/hardlink-b"]
    assert subprocess.run(take_out, input=unpacked, check=True, capture_output=True).stdout == b"one inode, two names\n"


def test_a_pxe_dir_is_laid_out_as_image_customizer_does(cache: Cache) -> None:
    shape = replace(SHAPES["pxe-dir"], contents="tiny")
    folder = shapes.cached(shape, cache=cache)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "bootx64.efi", "grubx64.efi", "boot/grub2/grub.cfg", "boot/grub2/grubenv", "boot/vmlinuz-6.6.104-1.azl3",
        "boot/initramfs-6.6.104-1.azl3.img", "image.iso", "azl-image-customizer/saved-configs.yaml",
    }  # fmt: skip
    grub_cfg = (folder / "boot/grub2/grub.cfg").read_text()
    assert "search" not in grub_cfg
    assert "ip=dhcp rd.live.azldownloader=enable" in grub_cfg
    assert "root=$rootdevice" in grub_cfg
    assert "set rootdevice=live:http://" in grub_cfg
    with tarfile.open(shapes.cached(replace(shape, media="pxe-tar"), cache=cache)) as archive:
        files = {member.name for member in archive if member.isreg()}
    assert files == {f"./{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}


def test_a_full_os_pxe_dir_has_no_iso(cache: Cache) -> None:
    folder = shapes.cached(replace(SHAPES["pxe-dir"], contents="tiny", full_os=True), cache=cache)
    assert not list(folder.glob("*.iso"))
    assert "root=" not in (folder / "boot/grub2/grub.cfg").read_text()


def test_a_folder_is_built_where_it_is_wanted(tmp_path: Path) -> None:
    output = tmp_path / "pxe"
    shapes.build(replace(SHAPES["pxe-dir"], contents="tiny"), output, cache=Cache(tmp_path / "cache"))
    assert (output / "image.iso").stat().st_size > 1 << 20


@pytest.mark.parametrize(
    "shape",
    [SHAPES["tiny"], SHAPES["ext4"], replace(SHAPES["pxe-dir"], contents="tiny", full_os=True, media="pxe-tar")],
    ids=["tiny", "ext4", "full-os pxe-tar"],
)
def test_the_same_inputs_give_the_same_bytes(shape: Shape, cache: Cache, tmp_path: Path) -> None:
    assert (
        shapes.cached(shape, cache=cache).read_bytes() == shapes.cached(shape, cache=Cache(tmp_path / "b")).read_bytes()
    )


def test_builders_at_the_same_time_make_each_image_once(tmp_path: Path) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        made = {
            *pool.map(lambda _: shapes.cached(SHAPES["tiny"], cache=Cache(tmp_path), say=said.append), range(4)),
        }
    assert len(made) == 1
    assert said.count("writing the ISO") == 1
    assert not [
        path for path in tmp_path.iterdir() if path.name.startswith((".work-", ".tiny-")) and path.stat().st_size
    ]


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    output = tmp_path / "out.iso"
    done = subprocess.run(
        [sys.executable, BUILD, "--shape", "tiny", "--output", output, "--cache", tmp_path / "cache"],
        env={**os.environ, "PATH": str(tmp_path)}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: missing: grub-mkimage; install with: apt-get install grub-common\n"
    assert not output.exists()
