"""Images of every shape are recognised by their content, and packed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import pxedir, shapes, tiny
from packing.site import BOOT_URL, Site, files_of
from pxe_pack.image import liveos
from pxe_pack.image.iso.reader import open_iso

Packs = Callable[..., str]
Refused = Callable[..., str]


def copied(folder: Path, where: Path) -> Path:
    """A private copy of the pxe-dir that tests may change."""
    shutil.copytree(folder, where)
    for path in where.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return where


def test_a_pxe_dir_is_packed_from_its_own_files_and_its_iso(site: Site, packs: Packs, tiny_pxe_dir: Path) -> None:
    site.image = tiny_pxe_dir
    packs()
    for name in ("bootx64.efi", "grubx64.efi", f"boot/vmlinuz-{tiny.RELEASE}", f"boot/initramfs-{tiny.RELEASE}.img"):
        assert (site.output / name).read_bytes() == (tiny_pxe_dir / name).read_bytes()
    grub_cfg = (site.output / "boot/grub2/grub.cfg").read_text()
    assert f"root=live:{BOOT_URL}" in grub_cfg
    assert grub_cfg.count("root=") == 1
    with open_iso(site.iso) as packed, open_iso(tiny_pxe_dir / pxedir.ISO) as given:
        assert packed.find("updates/usr/lib/pxe-fetch/pxe-fetch")
        assert packed.volume_id == given.volume_id


def test_nothing_in_a_pxe_dir_is_written_to(site: Site, packs: Packs, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in site.image.rglob("*")}
    packs("--inject", "rootfs")
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in site.image.rglob("*")} == before


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
@pytest.mark.parametrize("media", ["iso", "pxe-dir"])
def test_an_initrd_that_is_the_root_filesystem_is_known_by_its_content(compressor: str, media: str) -> None:
    shape = replace(
        shapes.SHAPES["full-os"],
        contents="tiny",
        compressor=compressor,  # type: ignore[arg-type]  # of a parameter's text
        media=media,  # type: ignore[arg-type]
    )
    with liveos.opened(shapes.cached(shape), boot_url="") as image:
        assert (image.kind, image.iso, image.root_format) == ("full-os", None, "cpio")
        assert image.facts.name == "Tiny LiveOS 1.0 (not bootable)"
        assert (image.systemd, image.machine) == (tiny.SYSTEMD_VERSION, "x86_64")
        assert image.facts.glibc
        assert image.tree
        assert image.tree.resolve("lib/systemd") == "usr/lib/systemd"
        assert image.tree.cat("etc/passwd").startswith(b"root:")
        assert "search" not in image.network.text
        assert "root=" not in image.network.text
        assert image.mtime > 0


def test_a_bootstrap_initrd_is_not_taken_for_a_root_filesystem(tiny_pxe_dir: Path) -> None:
    with liveos.opened(tiny_pxe_dir, boot_url="") as image:
        assert image.kind == "bootstrap"
        assert not any(facts.full_os for facts in image.initrds.values())
        assert "root=live:http://192.0.2.1" in image.network.text  # no URL given: it stays


def test_the_iso_of_a_pxe_dir_is_known_by_its_content(site: Site, packs: Packs, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    (site.image / pxedir.ISO).rename(site.image / "liveos.img")
    (site.image / "notes.iso").write_text("not an ISO at all")
    packs()
    assert "updates/usr/lib/pxe-fetch/pxe-fetch" in files_of(site.iso)


def test_a_pxe_dir_with_two_isos_is_refused(site: Site, refused: Refused, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    shutil.copyfile(site.image / pxedir.ISO, site.image / "other.iso")
    said = refused()
    assert "error[image-two-isos]" in said
    assert "image.iso, other.iso" in said


def test_a_pxe_dir_without_its_iso_is_refused(site: Site, refused: Refused, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    (site.image / pxedir.ISO).unlink()
    assert "error[image-no-iso]" in refused()


def test_a_link_out_of_a_pxe_dir_is_refused(site: Site, refused: Refused, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    (site.image / "boot" / "secret").symlink_to("../../fetch.yaml")
    site.write_config()
    said = refused()
    assert "error[image-link-outside]" in said
    assert "boot/secret" in said


def test_links_inside_a_pxe_dir_stand_for_their_files(site: Site, packs: Packs, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    kernel = f"vmlinuz-{tiny.RELEASE}"
    (site.image / "boot" / kernel).rename(site.image / "kernel")
    (site.image / "boot" / kernel).symlink_to("../kernel")
    (site.image / "boot" / "gone").symlink_to("nowhere")
    packs()
    assert (site.output / "boot" / kernel).read_bytes() == (tiny_pxe_dir / "boot" / kernel).read_bytes()
    assert not (site.output / "boot" / kernel).is_symlink()


def test_an_output_inside_the_image_is_refused(site: Site, refused: Refused, tiny_pxe_dir: Path) -> None:
    site.image = copied(tiny_pxe_dir, site.folder / "given")
    assert "error[output-in-image]" in refused("--output", site.image / "out")


def test_an_image_that_fetches_an_iso_needs_its_url(site: Site, refused: Refused) -> None:
    site.pack = {"boot_url": None}
    assert "error[boot-url-missing]" in refused()
