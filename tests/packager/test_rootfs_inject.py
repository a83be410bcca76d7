"""`--inject rootfs`: the root filesystem gets the payload and is otherwise unchanged."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from liveos import shapes, specials, tiny
from packing.site import Site, files_of, image_with_root, listed, partitioned, take_out
from packing.trees import Inode, listing, tree_of
from pxe_fetch.contract.paths import AGENT
from pxe_pack import cli
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.squashfs import superblock
from pxe_pack.squashfs import Image

ROOT = "liveos/rootfs.img"
NEW = {
    "etc/pxe-fetch",
    "etc/pxe-fetch/fetch.yaml",
    "usr/bin/pxe-fetch",
    "usr/lib/pxe-fetch",
    "usr/lib/pxe-fetch/_internal",
    "usr/lib/pxe-fetch/_internal/agent.json",
    "usr/lib/pxe-fetch/_internal/data.txt",
    "usr/lib/pxe-fetch/pxe-fetch",
    "usr/lib/systemd/catalog",
    "usr/lib/systemd/catalog/pxe-fetch.catalog",
    "usr/lib/systemd/system/multi-user.target.wants",
    "usr/lib/systemd/system/multi-user.target.wants/pxe-fetch.target",
    "usr/lib/systemd/system/pxe-fetch-catalog.service",
    "usr/lib/systemd/system/pxe-fetch.service",
    "usr/lib/systemd/system/pxe-fetch.target",
    "usr/share",
    "usr/share/bash-completion",
    "usr/share/bash-completion/completions",
    "usr/share/bash-completion/completions/pxe-fetch",
    "usr/share/man",
    "usr/share/man/man8",
    "usr/share/man/man8/pxe-fetch.8.gz",
}

Packs = Callable[..., str]


def trees(site: Site, where: Path) -> tuple[dict[str, Inode], dict[str, Inode]]:
    """The trees of the image's and of the layout's root filesystem."""
    old = take_out(site.image, ROOT, where / "old.squashfs")
    new = take_out(site.iso, ROOT, where / "new.squashfs")
    return tree_of(old), tree_of(new)


def test_only_the_payload_differs_of_every_inode(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    old, new = trees(site, tmp_path)
    assert new.keys() - old.keys() == NEW
    assert {path: inode for path, inode in new.items() if path in old} == old
    before, after = listing(tmp_path / "old.squashfs"), listing(tmp_path / "new.squashfs")
    assert {path: line for path, line in after.items() if path in before} == before
    # the comparison saw what there is to lose
    kinds = {inode.kind for inode in old.values()}
    assert {"0", "2", "3", "4", "5", "6"} <= kinds
    assert any(inode.links for inode in old.values())
    assert any("security.capability" in name for inode in old.values() for name, _ in inode.xattrs)
    assert any(inode.mode & stat.S_ISUID for inode in old.values())


def test_the_payload_is_owned_by_root_and_readable(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    _, new = trees(site, tmp_path)
    payload = {path: new[path] for path in NEW}
    assert {(inode.uid, inode.gid) for inode in payload.values()} == {(0, 0)}
    assert new["usr/lib/pxe-fetch/pxe-fetch"].mode == 0o755
    assert new["etc/pxe-fetch/fetch.yaml"].mode == 0o644
    assert new["usr/lib/pxe-fetch/pxe-fetch"].digest == hashlib.sha256(Path("/bin/true").read_bytes()).hexdigest()
    wants = new["usr/lib/systemd/system/multi-user.target.wants/pxe-fetch.target"]
    assert wants.target == "../pxe-fetch.target"


def test_the_input_is_not_written_to(site: Site, packs: Packs) -> None:
    copy = site.folder / "input.iso"
    shutil.copyfile(site.image, copy)
    copy.chmod(0o644)
    before = copy.read_bytes(), copy.stat().st_mtime_ns
    site.image = copy
    packs("--inject", "rootfs")
    packs("--inject", "updates")
    assert (copy.read_bytes(), copy.stat().st_mtime_ns) == before


def test_all_else_on_the_iso_is_as_it_was(site: Site, packs: Packs) -> None:
    packs("--inject", "rootfs")
    before, after = files_of(site.image), files_of(site.iso)
    # the boot catalog says at which sector the boot image lies
    assert {path for path in before if before[path] != after.get(path)} <= {ROOT, "boot.catalog"}
    assert before.keys() == after.keys()
    facts = {path: line for path, line in listed(site.iso).items() if path != f"/{ROOT}"}
    assert facts == {path: line for path, line in listed(site.image).items() if path != f"/{ROOT}"}


def test_the_iso_still_boots_by_uefi(site: Site, packs: Packs) -> None:
    packs("--inject", "rootfs")
    report = ["xorriso", "-indev", str(site.iso), "-report_el_torito", "plain"]
    said = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    assert "/boot/grub2/efiboot.img" in said
    assert "UEFI  y   none" in said


@pytest.mark.parametrize(
    ("compressor", "block_size"), [("gzip", 4096), ("zstd", 262144), ("xz", 1 << 20), ("lzo", 65536)]
)
def test_compressor_and_block_size_are_kept(
    site: Site, packs: Packs, tmp_path: Path, compressor: Literal["gzip", "zstd", "xz", "lzo"], block_size: int
) -> None:
    site.image = shapes.cached(replace(shapes.SHAPES["tiny"], compressor=compressor, block_size=block_size))
    packs("--inject", "rootfs")
    old, new = trees(site, tmp_path)
    assert {path: inode for path, inode in new.items() if path in old} == old
    with (tmp_path / "old.squashfs").open("rb") as before, (tmp_path / "new.squashfs").open("rb") as after:
        was, now = superblock(before), superblock(after)
    assert was
    assert now
    assert (now.compressor, now.block_size, now.options) == (compressor, block_size, was.options)
    assert (now.exportable, now.tails_packed, now.mkfs_time) == (was.exportable, was.tails_packed, was.mkfs_time)


def test_lz4_is_no_hindrance(site: Site, packs: Packs, tmp_path: Path) -> None:
    """tar2sqfs's output for it is rejected by unsquashfs and by the kernel."""
    site.image = shapes.cached(replace(shapes.SHAPES["tiny"], compressor="lz4"))
    packs("--inject", "rootfs")
    old, new = trees(site, tmp_path)
    assert {path: inode for path, inode in new.items() if path in old} == old


def test_the_root_filesystems_own_bytes_stay(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    old = take_out(site.image, ROOT, tmp_path / "old.squashfs").read_bytes()
    new = take_out(site.iso, ROOT, tmp_path / "new.squashfs").read_bytes()
    assert new[96 : len(old)] == old[96:]


def test_every_reader_of_the_iso_finds_the_longer_file(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    read = ["xorriso", "-osirrox", "on", "-read_fs", "norock", "-indev", str(site.iso)]
    subprocess.run([*read, "-extract", f"/{ROOT}", str(tmp_path / "joliet")], check=True, capture_output=True)
    assert (tmp_path / "joliet").read_bytes() == take_out(site.iso, ROOT, tmp_path / "rock-ridge").read_bytes()
    said = subprocess.run(["file", "-b", str(site.iso)], check=True, capture_output=True, text=True).stdout
    assert "ISO 9660" in said
    with open_iso(site.iso) as image:
        end = max(span.offset + span.size for entry in image.entries.values() for span in entry.spans)
        assert end <= image.volume_size <= image.size


def test_a_partitioned_image_has_a_table_of_its_new_size(site: Site, packs: Packs, tmp_path: Path) -> None:
    site.image = partitioned(site, tmp_path)
    packs("--inject", "rootfs")
    head = site.iso.read_bytes()[: 1 << 12]
    backup = int.from_bytes(head[512 + 32 : 512 + 40], "little") * 512
    assert head[512:520] == site.iso.read_bytes()[backup : backup + 8] == b"EFI PART"
    old, new = trees(site, tmp_path)
    assert new.keys() - old.keys() == NEW
    assert {path: inode for path, inode in new.items() if path in old} == old


def test_the_root_directory_keeps_owner_mode_and_xattrs(site: Site, packs: Packs, tmp_path: Path) -> None:
    """Sqfstar 4.5 and most ways of repacking lose them; under SELinux a root without its label does not boot."""
    label = {"security.selinux": b"system_u:object_r:root_t:s0\0"}
    contents = [specials.Inode(".", b"5", mode=0o711, uid=5, gid=6, xattrs=label), *tiny.tree()]
    site.image = image_with_root(site.image, contents, tmp_path)
    packs("--inject", "rootfs")
    old, new = trees(site, tmp_path)
    assert (old[""].mode, old[""].uid, old[""].gid) == (0o711, 5, 6)
    assert old[""].xattrs == (("SCHILY.xattr.security.selinux", "system_u:object_r:root_t:s0\0"),)
    assert new[""] == old[""]


def test_packing_again_replaces_the_payload(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    first = site.iso.read_bytes()
    packed = site.folder / "packed.iso"
    site.iso.rename(packed)
    shutil.rmtree(site.output)
    image, site.image = site.image, packed
    packs("--inject", "rootfs")
    assert site.iso.read_bytes() == first
    site.image = image
    _, new = trees(site, tmp_path)
    assert new.keys() >= NEW


def test_the_same_inputs_give_the_same_bytes(site: Site, packs: Packs) -> None:
    packs("--inject", "rootfs")
    first = {path.name: path.read_bytes() for path in site.output.rglob("*") if path.is_file()}
    packs("--inject", "rootfs")
    assert {path.name: path.read_bytes() for path in site.output.rglob("*") if path.is_file()} == first


@pytest.mark.parametrize("how", ["rootfs", "updates"])
def test_without_any_privilege_the_same_bytes_come_out(site: Site, packs: Packs, how: str) -> None:
    """In its own user namespace a process may neither chown nor mknod, even if root started it."""
    packs("--inject", how)
    first = site.iso.read_bytes()
    pack = [sys.executable, "-m", "pxe_pack", *site.command("--quiet", "--inject", how)]
    check = 'mknod "$0/device" c 1 3 2>/dev/null && exit 99; exec "$@"'
    command = ["unshare", "-U", "sh", "-c", check, str(site.folder), *pack]
    environment = {**os.environ, "TZ": "Pacific/Auckland", "LC_ALL": "C", "HOME": str(site.folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert site.iso.read_bytes() == first


def test_an_image_with_a_file_where_a_folder_has_to_go_is_refused(
    site: Site, refused: Callable[..., str], tmp_path: Path
) -> None:
    contents = [*tiny.tree(), specials.Inode("usr/lib/systemd/catalog", data=b"in the way")]
    site.image = image_with_root(site.image, contents, tmp_path)
    said = refused("--inject", "rootfs")
    assert "error[payload-conflict]: the image has a file at /usr/lib/systemd/catalog" in said


@pytest.mark.parametrize(
    ("inode", "named"),
    [
        (specials.Inode("usr/bin/pxe-fetch", data=b"#!/bin/sh\n"), "a file"),
        (specials.symlink("usr/bin/pxe-fetch", "../local/bin/x"), "a link to ../local/bin/x"),
    ],
)
def test_an_image_with_a_command_pxe_fetch_of_its_own_is_refused(
    site: Site, refused: Callable[..., str], tmp_path: Path, inode: specials.Inode, named: str
) -> None:
    site.image = image_with_root(site.image, [*tiny.tree(), inode], tmp_path)
    said = refused("--inject", "rootfs")
    assert f"the image has {named} at /usr/bin/pxe-fetch, where pxe-pack needs a link to {AGENT}" in said


def test_the_agent_is_a_command_with_a_manual_page(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "rootfs")
    take_out(site.iso, ROOT, tmp_path / "new.squashfs")
    root = tmp_path / "root"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", root, tmp_path / "new.squashfs", "usr"], check=True)
    assert str((root / "usr/bin/pxe-fetch").readlink()) == AGENT
    assert (root / AGENT.lstrip("/")).exists()
    page = gzip.decompress((root / "usr/share/man/man8/pxe-fetch.8.gz").read_bytes())
    assert b"pxe\\-fetch status [\\-\\-wait]" in page
    completion = (root / "usr/share/bash-completion/completions/pxe-fetch").read_text()
    assert completion.rstrip().endswith("pxe-fetch")


def test_a_damaged_root_filesystem_is_told_and_nothing_is_left(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Wherever the damage is: in data read first, in data only the graft reads, or in data that is never read."""
    raw = site.image.read_bytes()
    with open_iso(site.image) as image:
        span = image.entries[ROOT].spans[0]
    with Image.open(site.image, offset=span.offset, size=span.size) as root:
        tables, end = root.superblock.inode_table, root.superblock.bytes_used
    random, codes = Random(5), set()
    for turn in range(16):
        damaged = bytearray(raw)
        for _ in range(1 + turn % 3):
            damaged[span.offset + random.choice([random.randrange(96), random.randrange(tables, end)])] ^= 0x5A
        site.image = tmp_path / "damaged.iso"
        site.image.write_bytes(damaged)
        code = cli.main(site.command("--quiet", "--inject", "rootfs"))
        said = capsys.readouterr().err
        assert code in (0, 2), said
        assert "Traceback" not in said
        assert site.output.exists() is (code == 0), said
        assert not site.leftovers()
        shutil.rmtree(site.output, ignore_errors=True)
        codes.add(code)
    assert 2 in codes


def test_links_in_the_image_are_followed_inside_the_image(site: Site, packs: Packs, tmp_path: Path) -> None:
    contents = [inode for inode in tiny.tree() if inode.path != "srv"]
    contents += [specials.folder("data"), specials.symlink("srv", "/data")]
    site.image = image_with_root(site.image, contents, tmp_path)
    site.rest["allowed_roots"] = ["/srv/models"]
    packs("--inject", "rootfs")
    old, new = trees(site, tmp_path)
    assert new["srv"] == old["srv"]
    assert new["data/models"].kind == "5"
    assert "srv/models" not in new
