"""`--inject updates`: the ISO gets an updates/ tree and is otherwise unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from packing.site import Site, files_of, listed, make_iso, partitioned, take_out
from pxe_pack.image.iso.reader import open_iso

AGENT = "updates/usr/lib/pxe-fetch"
UNITS = "updates/usr/lib/systemd/system"

Packs = Callable[..., str]


def test_only_the_updates_tree_differs(site: Site, packs: Packs) -> None:
    packs("--inject", "updates")
    before, after = files_of(site.image), files_of(site.iso)
    assert {path: content for path, content in after.items() if path in before} == before
    assert after.keys() - before.keys() == {
        f"{AGENT}/pxe-fetch",
        f"{AGENT}/_internal/agent.json",
        f"{AGENT}/_internal/data.txt",
        f"{UNITS}/pxe-fetch.service",
        f"{UNITS}/pxe-fetch.target",
        f"{UNITS}/pxe-fetch-catalog.service",
        "updates/usr/lib/systemd/catalog/pxe-fetch.catalog",
        "updates/etc/pxe-fetch/fetch.yaml",
        "updates/usr/share/bash-completion/completions/pxe-fetch",
        "updates/usr/share/man/man8/pxe-fetch.8.gz",
    }
    old, new = listed(site.image), listed(site.iso)
    assert {path: facts for path, facts in new.items() if not path.startswith("/updates")} == old


def test_the_tree_is_owned_by_root_with_proper_modes(site: Site, packs: Packs) -> None:
    packs("--inject", "updates")
    with open_iso(site.iso) as image:
        tree = {entry.path: entry for entry in [image.entries["updates"], *image.below("updates")]}
    assert {(entry.uid, entry.gid) for entry in tree.values()} == {(0, 0)}
    assert {entry.mode & 0o7777 for entry in tree.values() if entry.is_directory} == {0o755}
    assert tree[f"{AGENT}/pxe-fetch"].mode & 0o7777 == 0o755
    assert tree["updates/etc/pxe-fetch/fetch.yaml"].mode & 0o7777 == 0o644
    assert tree[f"{UNITS}/multi-user.target.wants/pxe-fetch.target"].target == "../pxe-fetch.target"


def test_another_reader_sees_the_same_tree(site: Site, packs: Packs, tmp_path: Path) -> None:
    packs("--inject", "updates")
    agent = take_out(site.iso, f"{AGENT}/pxe-fetch", tmp_path / "agent")
    assert agent.read_bytes() == Path("/bin/true").read_bytes()


def test_the_copy_keeps_its_boot_entry_and_volume_id(site: Site, packs: Packs) -> None:
    packs("--inject", "updates")
    report = ["xorriso", "-indev", str(site.iso), "-pvd_info", "-report_el_torito", "plain"]
    said = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    assert "Volume Id    : CDROM" in said
    assert "/boot/grub2/efiboot.img" in said
    with open_iso(site.image) as before, open_iso(site.iso) as after:
        efi = "boot/grub2/efiboot.img"
        assert after.entries[efi].spans == before.entries[efi].spans


def test_the_old_part_stays_but_for_the_volume_descriptors(site: Site, packs: Packs) -> None:
    packs("--inject", "updates")
    old, new = site.image.read_bytes(), site.iso.read_bytes()
    changed = [at for at in range(len(old)) if old[at] != new[at]]
    assert min(changed) >= 16 * 2048
    assert max(changed) < 32 * 2048


def test_it_is_what_growing_a_plain_copy_gives(site: Site, packs: Packs, tmp_path: Path) -> None:
    """The root filesystem is copied after growing; the ISO must be byte for byte as if it had been copied before."""
    packs("--inject", "updates")
    copy = tmp_path / "copy.iso"
    shutil.copyfile(site.image, copy)
    old, new = copy.read_bytes(), site.iso.read_bytes()
    with open_iso(site.image) as image:
        files = [entry for entry in image.entries.values() if entry.is_file]
    for entry in files:
        for span in entry.spans:
            piece = slice(span.offset, span.offset + span.size)
            assert new[piece] == old[piece], entry.path
    assert new[32 * 2048 : len(old)] == old[32 * 2048 :]


def test_an_ext4_root_is_taken(site: Site, packs: Packs, tiny_ext4: Path) -> None:
    site.image = tiny_ext4
    packs()
    assert site.manifest()["inject"]["how"] == "updates"  # type: ignore[index]
    assert f"{AGENT}/pxe-fetch" in files_of(site.iso)


def test_packing_again_replaces_the_tree(site: Site, packs: Packs, agent: Path, tmp_path: Path) -> None:
    packs("--inject", "updates")
    expected = files_of(site.iso)
    packed = tmp_path / "packed.iso"
    shutil.copyfile(site.iso, packed)
    site.image = packed
    packs("--inject", "updates")
    again = files_of(site.iso)
    assert again == expected
    # a file that a former agent had goes
    older = tmp_path / "older.iso"
    command = ["xorriso", "-indev", str(packed), "-outdev", str(older), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(agent), f"/{AGENT}/of-a-former-agent"], check=True, capture_output=True)
    site.image = older
    packs("--inject", "updates")
    assert files_of(site.iso).keys() == expected.keys()


def test_updates_of_the_user_stay(site: Site, packs: Packs, tmp_path: Path) -> None:
    mine = tmp_path / "motd"
    mine.write_text("hello\n")
    own = tmp_path / "own.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(own), "-boot_image", "any", "replay"]
    attributes = ["-chown", "7", "/updates/etc", "--", "-chmod", "0700", "/updates/etc", "--"]
    subprocess.run([*command, "-map", str(mine), "/updates/etc/motd", *attributes], check=True, capture_output=True)
    site.image = own
    packs("--inject", "updates")
    after = files_of(site.iso)
    assert after["updates/etc/motd"] == b"hello\n"
    assert "updates/etc/pxe-fetch/fetch.yaml" in after
    assert listed(site.iso)["/updates/etc"].split()[0] == "drwx------"
    assert listed(site.iso)["/updates/etc"].split()[2] == "7"


def test_a_rewrite_takes_the_former_updates_tree_off(site: Site, packs: Packs, tmp_path: Path) -> None:
    """At boot it would be copied over the new root filesystem's files."""
    packs("--inject", "updates")
    packed = tmp_path / "packed.iso"
    site.iso.rename(packed)
    site.image = packed
    shutil.rmtree(site.output)
    packs("--inject", "rootfs")
    with open_iso(site.iso) as image:
        assert "updates" not in image.entries


def test_a_partitioned_image_is_written_anew(site: Site, packs: Packs, tmp_path: Path) -> None:
    """Growing would leave a partition table that describes a smaller disk."""
    site.image = partitioned(site, tmp_path)
    packs("--inject", "updates")
    head = site.iso.read_bytes()[: 1 << 12]
    assert head[512:520] == b"EFI PART"
    last = int.from_bytes(head[512 + 32 : 512 + 40], "little")  # the GPT's backup header
    size = site.iso.stat().st_size
    with site.iso.open("rb") as file:
        file.seek(last * 512)
        assert file.read(8) == b"EFI PART"
    assert last * 512 < size
    assert f"{AGENT}/pxe-fetch" in files_of(site.iso)


def test_a_partitioned_image_loses_its_graft(site: Site, packs: Packs, tmp_path: Path) -> None:
    site.image = partitioned(site, tmp_path)
    packs("--inject", "rootfs")
    site.image = site.iso.rename(tmp_path / "packed.iso")
    packs("--inject", "updates")
    root = take_out(site.iso, "liveos/rootfs.img", tmp_path / "root.squashfs")
    told = subprocess.run(["unsquashfs", "-l", root], check=True, capture_output=True, text=True).stdout
    assert "etc/passwd" in told
    assert "pxe-fetch" not in told


def test_the_same_inputs_give_the_same_bytes(site: Site, packs: Packs) -> None:
    before = os.umask(0o022)
    try:
        packs("--inject", "updates")
        first = contents(site.output)
        os.umask(0o077)
        packs("--inject", "updates")
    finally:
        os.umask(before)
    assert contents(site.output) == first


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Path -> content and mode."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode) for path in files}


def test_an_initrd_without_the_hook_is_left_to_the_other_way(
    site: Site, packs: Packs, refused: Callable[..., str], tmp_path: Path
) -> None:
    site.image = with_other_initrd(site.image, tmp_path, without="apply-live-updates")
    assert "lacks the apply-live-updates hook" in refused("--inject", "updates")
    packs("--inject", "auto")
    inject = site.manifest()["inject"]
    assert isinstance(inject, dict)
    assert inject["how"] == "rootfs"
    assert "not `updates`: boot/initrd.img lacks the apply-live-updates hook" in inject["why"]


def with_other_initrd(image: Path, where: Path, *, without: str) -> Path:
    """The image with an initrd that lacks the files whose names contain `without`."""
    initrd = take_out(image, "boot/initrd.img", where / "initrd.img")
    stage = where / "initrd"
    stage.mkdir()
    script = f"zcat '{initrd}' | cpio -id --quiet --no-absolute-filenames && find . -name '*{without}*' -delete"
    repack = f"find . | cpio -o -H newc --quiet | gzip > '{initrd}'"
    subprocess.run(["sh", "-c", f"{script} && {repack}"], check=True, cwd=stage, capture_output=True)
    target = where / "other.iso"
    command = ["xorriso", "-indev", str(image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(initrd), "/boot/initrd.img"], check=True, capture_output=True)
    return target


def test_updates_is_refused_for_an_enforcing_image(site: Site, refused: Callable[..., str], tmp_path: Path) -> None:
    cfg = take_out(site.image, "boot/grub2/grub-pxe.cfg", tmp_path / "grub-pxe.cfg")
    cfg.write_text(cfg.read_text().replace("selinux=0", "enforcing=1"))
    target = tmp_path / "enforcing.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(target), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-map", str(cfg), "/boot/grub2/grub-pxe.cfg"], check=True, capture_output=True)
    site.image = target
    said = refused("--inject", "updates")
    assert "SELinux is enforcing, and files copied at boot get no labels" in said
    assert "hint: use --inject rootfs" in said


def test_an_iso_without_rock_ridge_is_read_as_linux_shows_it(tmp_path: Path) -> None:
    image = make_iso(tmp_path / "plain.iso", {"BOOT/GRUB.CFG": "x"}, options=["--norock"])
    with open_iso(image) as opened:
        assert opened.find("boot/grub.cfg")
