"""`--compressor`: the root filesystem recompressed. Its tree must equal that of a graft: each proves the other."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import shapes, specials, tiny
from packager.squashfs.images import mksquashfs_tree
from packing.site import Site, image_with_root, take_out
from packing.trees import Inode, listing, tree_of
from pxe_pack.image.squashfs import superblock

ROOT = "liveos/rootfs.img"

Packs = Callable[..., str]
Refused = Callable[..., str]


def tree(site: Site, where: Path, name: str) -> dict[str, Inode]:
    return tree_of(take_out(site.iso, ROOT, where / name))


@pytest.mark.parametrize(("compressor", "level"), [("zstd", "1"), ("xz", None), ("gzip", "9")])
def test_a_graft_and_a_rewrite_give_the_same_tree(
    site: Site, packs: Packs, tmp_path: Path, compressor: str, level: str | None
) -> None:
    packs("--inject", "rootfs")
    grafted = tree(site, tmp_path, "grafted")
    packs("--compressor", compressor, *(("--level", level) if level else ()))
    assert tree(site, tmp_path, "rewritten") == grafted
    before, after = listing(tmp_path / "grafted"), listing(tmp_path / "rewritten")
    assert after == before
    with take_out(site.image, ROOT, tmp_path / "old").open("rb") as old, (tmp_path / "rewritten").open("rb") as new:
        was, now = superblock(old), superblock(new)
    assert was
    assert now
    assert (now.compressor, now.block_size) == (compressor, was.block_size)
    assert (now.exportable, now.tails_packed, now.mkfs_time) == (was.exportable, was.tails_packed, was.mkfs_time)
    assert site.manifest()["inject"]["how"] == "rootfs"  # type: ignore[index]


def test_the_configuration_says_it_as_the_flags_do(site: Site, packs: Packs) -> None:
    packs("--compressor", "zstd", "--level", "1")
    first = site.iso.read_bytes()
    site.pack = {"compressor": "zstd", "level": 1}
    packs()
    assert site.iso.read_bytes() == first


def test_the_compressor_that_the_image_has_already_is_no_reason_to_rewrite(site: Site, packs: Packs) -> None:
    packs("--inject", "rootfs")
    first = site.iso.read_bytes()
    packs("--inject", "rootfs", "--compressor", "gzip")
    assert site.iso.read_bytes() == first


def test_a_rewrite_of_a_packed_image_is_one_of_the_image_itself(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--compressor", "zstd", "--level", "1")
    first = take_out(site.iso, ROOT, tmp_path / "first").read_bytes()
    packs("--inject", "rootfs")
    packed = shutil.move(site.iso, site.folder / "packed.iso")
    shutil.rmtree(site.output)
    site.image = Path(packed)
    packs("--compressor", "zstd", "--level", "1")
    assert take_out(site.iso, ROOT, tmp_path / "again").read_bytes() == first


def test_a_graft_replaces_the_payload_of_a_rewrite(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--compressor", "zstd", "--level", "1")
    first = tree(site, tmp_path, "first")
    packed = shutil.move(site.iso, site.folder / "packed.iso")
    shutil.rmtree(site.output)
    site.image = Path(packed)
    packs("--inject", "rootfs")
    assert tree(site, tmp_path, "second") == first


def test_sockets_are_left_to_the_graft(site: Site, packs: Packs, refused: Refused, tmp_path: Path) -> None:

    source = tmp_path / "tree"
    shutil.copytree("/usr/share/zoneinfo/Etc", source / "usr/share")
    for inode in tiny.tree():
        path = source / inode.path
        if inode.kind == b"5":
            path.mkdir(parents=True, exist_ok=True)
        elif inode.kind == b"0":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(inode.data)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(source / "sock"))
        root = mksquashfs_tree(tmp_path / "root.squashfs", source)
    site.image = image_with_file(site.image, root, tmp_path)
    assert "has a socket (/sock), which a tar stream cannot hold" in refused("--compressor", "zstd")
    packs("--inject", "rootfs")


def image_with_file(image: Path, root: Path, where: Path) -> Path:
    """The image with the squashfs `root` for its root filesystem."""
    target = where / "socket.iso"
    command = ["xorriso", "-indev", str(image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(root), f"/{ROOT}"], check=True, capture_output=True)
    return target


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--level", "3"), "error[level-without-compressor]"),
        (("--compressor", "gzip", "--level", "10"), "gzip has levels from 1 to 9, not 10"),
        (
            ("--compressor", "zstd", "--inject", "updates"),
            "`updates`: it cannot change the root filesystem's compressor",
        ),
    ],
)
def test_what_cannot_be_compressed_so_is_refused(refused: Refused, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(*arguments)


def test_an_lz4_image_can_get_another_compressor(site: Site, packs: Packs, tmp_path: Path) -> None:
    site.image = shapes.cached(replace(shapes.SHAPES["tiny"], compressor="lz4"))
    packs("--inject", "rootfs")
    grafted = tree(site, tmp_path, "grafted")
    packs("--compressor", "zstd", "--level", "1")
    assert tree(site, tmp_path, "rewritten") == grafted


def test_the_root_directory_keeps_owner_mode_and_xattrs(site: Site, packs: Packs, tmp_path: Path) -> None:
    """Sqfstar 4.5 and most ways of repacking lose them; with SELinux a root without its label does not boot."""
    label = {"security.selinux": b"system_u:object_r:root_t:s0\0"}
    contents = [specials.Inode(".", b"5", mode=0o711, uid=5, gid=6, xattrs=label), *tiny.tree()]
    site.image = image_with_root(site.image, contents, tmp_path)
    old = tree_of(take_out(site.image, ROOT, tmp_path / "old"))
    packs("--compressor", "zstd", "--level", "1")
    new = tree(site, tmp_path, "new")
    assert (old[""].mode, old[""].uid, old[""].gid) == (0o711, 5, 6)
    assert new[""] == old[""]
    assert new["usr"] == old["usr"]
