"""Images as several producers lay them out, packed, and looked at as a node would come to them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import shapes, tiny
from packing import producers
from packing.site import BOOT_URL, Site, files_of, image_with_root, make_iso
from packing.walk import walked

Packs = Callable[..., str]
Refused = Callable[..., str]


def check_by_grub(text: str) -> None:
    subprocess.run(["grub-script-check"], input=text.encode(), check=True, capture_output=True)


def test_entries_in_files_become_a_menu_that_holds_over_tftp(site: Site, packs: Packs) -> None:
    site.image = producers.azure_linux_4(site.image, site.folder / "azl4.iso")
    packs()
    grub_cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    check_by_grub(grub_cfg)
    assert "blscfg" not in grub_cfg
    assert len(walked(site.output)) == 3 + 2 * len(producers.KERNELS)
    assert [line.split("--id ")[1] for line in grub_cfg.splitlines() if line.startswith("menuentry")] == [
        f"{version} {{" for version in reversed(producers.KERNELS)
    ]
    assert grub_cfg.count(f"root=live:{BOOT_URL} ") == 2
    for version in producers.KERNELS:
        assert (site.output / f"boot/vmlinuz-{version}").read_bytes().endswith(version.encode())
        assert (site.output / f"boot/initramfs-{version}.img").is_file()
    assert (site.output / "boot/grub2/grubenv").read_text() == producers.GRUBENV


def test_names_of_an_iso_without_rock_ridge_are_those_that_linux_shows(site: Site, packs: Packs) -> None:
    site.image = producers.without_rock_ridge(site.image, site.folder / "plain.iso")
    packs("--inject", "updates")
    grub_cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    check_by_grub(grub_cfg)
    assert (site.output / "boot/vmlinuz").stat().st_size
    inside = files_of(site.iso)
    assert "updates/usr/lib/pxe-fetch/pxe-fetch" in inside
    assert "liveos/rootfs.img" in inside  # as rd.live.dir and rd.live.squashimg name it
    listed = subprocess.run(
        ["xorriso", "-indev", site.iso, "-find", "/liveos"], capture_output=True, text=True, check=True
    )
    assert "'/liveos/rootfs.img'" in listed.stdout


@pytest.mark.parametrize("lost", ["vmlinuz", "initramfs"])
def test_an_entry_of_a_kernel_that_is_not_there_is_left_out(site: Site, packs: Packs, lost: str) -> None:
    image = producers.azure_linux_4(site.image, site.folder / "azl4.iso")
    files: dict[str, str | bytes] = {**files_of(image)}
    del files[next(name for name in files if name.startswith(f"boot/{lost}-{producers.KERNELS[1]}"))]
    site.image = make_iso(site.folder / "poor.iso", files)
    packs()
    assert f"vmlinuz-{producers.KERNELS[1]}" not in (site.output / "boot/grub2/grub.cfg").read_text()
    assert not (site.output / f"boot/vmlinuz-{producers.KERNELS[1]}").exists()


def test_bootstrap_folder_with_its_entries_written_out_is_packed_from_its_iso(site: Site, packs: Packs) -> None:
    site.image = producers.azure_linux_4_pxe_dir(site.image, site.folder / "azl4-pxe")
    packs("--inject", "updates")
    grub_cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    check_by_grub(grub_cfg)
    assert "blscfg" not in grub_cfg
    newest, oldest = (grub_cfg.index(f"/boot/vmlinuz-{version}") for version in reversed(producers.KERNELS))
    assert newest < oldest
    assert grub_cfg.count(f"root=live:{BOOT_URL}") == len(producers.KERNELS)
    assert "updates/usr/lib/pxe-fetch/pxe-fetch" in files_of(site.iso)
    assert (site.output / "EFI/azurelinux/grub.cfg").exists()  # GRUB's own prefix


def test_full_os_of_several_kernels_gets_the_payload_in_the_one_initrd_that_all_have(
    site: Site, packs: Packs, tiny_full_os: Path
) -> None:
    site.image = producers.full_os_of_several_kernels(tiny_full_os, site.folder / "azl-pxe")
    packs()
    grub_cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    check_by_grub(grub_cfg)
    assert set(walked(site.output)) >= {"/boot/initrd.img", *(f"/boot/vmlinuz-{one}" for one in producers.KERNELS)}
    for version in producers.KERNELS:
        assert f"/boot/vmlinuz-{version} " in grub_cfg
    before, after = ((folder / "boot/initrd.img").read_bytes() for folder in (site.image, site.output))
    assert after.startswith(before)
    assert len(after) > len(before)
    assert not list(site.output.glob("*.iso"))
    assert site.manifest()["boot_url"] is None


def test_crash_initrd_on_the_medium_is_left_behind(site: Site, packs: Packs, tiny_guarded: Path) -> None:
    site.image = producers.kdump_on_the_medium(tiny_guarded, site.folder / "kdump.iso", version=tiny.RELEASE)
    packs()
    crash = f"boot/initramfs-{tiny.RELEASE}kdump.img"
    assert not (site.output / crash).exists()
    assert (site.output / f"boot/initramfs-{tiny.RELEASE}.img").is_file()
    left = site.manifest()["left_behind"]
    assert isinstance(left, list)
    assert crash in {one["path"] for one in left}
    assert "kdump" not in (site.output / "boot/grub2/grub.cfg").read_text()


@pytest.mark.parametrize("way", ["rootfs", "updates"])
def test_crash_kernel_that_was_kept_in_the_root_filesystem_stays_there(site: Site, packs: Packs, way: str) -> None:
    kept = producers.kdump_kept(tiny.RELEASE)
    site.image = image_with_root(site.image, [*tiny.tree(), *kept], site.folder)
    packs("--inject", way)
    root = site.folder / "rootfs.img"
    root.write_bytes(files_of(site.iso)["liveos/rootfs.img"])
    for inode in kept[1:]:
        shown = subprocess.run(["unsquashfs", "-cat", root, inode.path], capture_output=True, check=True)
        assert shown.stdout == inode.path.encode()
    assert not (site.output / kept[2].path).exists()


def test_crash_kernel_that_was_kept_in_a_full_os_initrd_is_none_that_boots(
    site: Site, packs: Packs, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = producers.kdump_kept(tiny.RELEASE)
    whole = tiny.tree
    monkeypatch.setattr(tiny, "tree", lambda: [*whole(), *kept])
    site.image = shapes.cached(replace(shapes.SHAPES["full-os"], contents="tiny", media="pxe-dir"))
    packs()
    assert f"/boot/initramfs-{tiny.RELEASE}.img" in (site.output / "boot/grub2/grub.cfg").read_text()
    assert "kdump" not in (site.output / "boot/grub2/grub.cfg").read_text()
