"""The boot loaders of a layout: the image's own, or others if those cannot boot over the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from packing import producers
from packing.bootloaders import SHIM, debian, grub
from packing.site import Site
from packing.walk import walked
from pxe_pack.image import bootloader
from pxe_pack.image.grub import netboot
from pxe_pack.image.grub.efi_image import read_grub
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.media import Names

Packs = Callable[..., str]
Refused = Callable[..., str]


def judged(path: Path) -> netboot.Netboot:
    image = read_grub(path.read_bytes())
    assert image
    return netboot.over_network(image)


@pytest.mark.parametrize(
    ("prefix", "script", "config"),
    [
        ("/boot/grub2", "", "/boot/grub2/grub.cfg"),
        ("/EFI/fedora", "", "/EFI/fedora/grub.cfg"),
        ("", "", "/grub.cfg"),
        ("/x", "search --file --set=root /mark\nset prefix=($root)/boot/grub2\n", "/boot/grub2/grub.cfg"),
        ("/grub", "if [ -e $prefix/a ]; then source $prefix/a; else source $prefix/grub.cfg; fi", "/grub/grub.cfg"),
        ("/g", 'if [ -z "$prefix" -o ! -e "$prefix" ]; then set prefix=($root)/h; fi\nsource $prefix/b', "/h/b"),
        ("/g", "if ! search --file /x; then normal; fi\nsource /never.cfg", "/g/grub.cfg"),
    ],
)  # fmt: skip
def test_what_a_grub_reads_over_tftp_is_told_from_its_prefix_and_script(
    tmp_path: Path, prefix: str, script: str, config: str
) -> None:
    assert judged(grub(tmp_path / "grub.efi", prefix=prefix, script=script)) == netboot.Netboot(config=config)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"modules": "normal linux iso9660"}, "its GRUB lacks the built-in modules efinet, tftp"),
        ({"prefix": "(hd0,gpt1)/boot/grub"}, "looks for its files on a disk"),
        ({"script": "configfile (cd0)/boot/grub.cfg"}, "reads (cd0)/boot/grub.cfg, which is not on the network"),
        ({"script": "if"}, "cannot parse the script"),
    ],
)
def test_a_grub_that_ends_at_a_prompt_is_told(tmp_path: Path, options: dict[str, str], why: str) -> None:
    assert why in judged(grub(tmp_path / "grub.efi", **options)).obstacle


def test_debians_signed_grubs_are_told_apart() -> None:
    folder = Path("/usr/lib/grub/x86_64-efi-signed")
    assert judged(folder / "grubnetx64.efi.signed") == netboot.Netboot(config="/grub/grub.cfg")
    assert judged(folder / "gcdx64.efi.signed").obstacle == "its GRUB lacks the built-in module tftp"


def test_a_kiwi_image_gets_this_machines_boot_loaders_and_what_leads_them(
    site: Site, packs: Packs, machine_root: Path
) -> None:
    site.image = producers.kiwi(site.image, site.folder / "kiwi.iso")
    debian(machine_root)
    said = packs()
    assert (site.output / "bootx64.efi").read_bytes() == SHIM.read_bytes()
    assert walked(site.output) == [
        "/bootx64.efi", "/grubx64.efi", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/x86_64/loader/linux",
        "/boot/x86_64/loader/initrd",
    ]  # fmt: skip
    loaders = site.manifest()["boot_loaders"]
    assert isinstance(loaders, dict)
    assert "cannot boot over the network: its GRUB lacks the built-in modules efinet, tftp" in loaders["why"]
    assert "grubnetx64.efi.signed" in loaders["origin"]
    assert "grub/" in said


def test_an_image_that_no_boot_loader_can_netboot_is_refused_with_what_to_do(site: Site, refused: Refused) -> None:
    image = site.image
    site.image = producers.kiwi(image, site.folder / "kiwi.iso")
    said = refused()
    assert "error[boot-loader-unfit]: the image's boot loaders cannot boot over the network" in said
    assert "--boot-loader" in said
    assert "apt-get install shim-signed grub-efi-amd64-signed" in said


def test_given_boot_loaders_are_taken_whatever_they_are_called(site: Site, packs: Packs, tmp_path: Path) -> None:
    given = grub(tmp_path / "loaders" / "network.efi", prefix="/EFI/fedora").parent
    shutil.copyfile(SHIM, given / "shimx64.efi")
    (given / "README").write_text("of ours\n")
    site.pack = {"boot_loader": "loaders"}
    packs()
    assert walked(site.output)[:4] == ["/bootx64.efi", "/grubx64.efi", "/EFI/fedora/grub.cfg", "/boot/grub2/grub.cfg"]
    assert site.manifest()["boot_loaders"] == {
        "files": ["bootx64.efi", "grubx64.efi"],
        "origin": str(given),
        "why": "chosen with --boot-loader",
        "config": "/EFI/fedora/grub.cfg",
    }


def test_given_boot_loaders_that_cannot_netboot_are_refused(site: Site, refused: Refused, tmp_path: Path) -> None:
    given = grub(tmp_path / "loaders" / "grubx64.efi", modules="normal linux").parent
    assert "error[boot-loader-unfit]" in refused("--boot-loader", given)
    assert "it has no GRUB for UEFI on x86_64" in refused("--boot-loader", site.agent)
    assert "error[boot-loader-unreadable]" in refused("--boot-loader", site.folder / "nowhere")


def test_a_grub_alone_is_what_firmware_starts(site: Site, packs: Packs, tmp_path: Path) -> None:
    given = grub(tmp_path / "loaders" / "grubx64.efi")
    packs("--boot-loader", given.parent)
    assert (site.output / "bootx64.efi").read_bytes() == given.read_bytes()
    assert (site.output / "grubx64.efi").read_bytes() == given.read_bytes()


def test_boot_loaders_in_the_el_torito_image_alone_are_found(tiny: Path) -> None:
    with open_iso(tiny) as image:
        entries = Names(entry for path, entry in image.entries.items() if not path.endswith(".efi"))
        found = bootloader.boot_loaders(replace(image, entries=entries))
        whole = bootloader.boot_loaders(image)
        assert found
        assert whole
        assert found.netboot == whole.netboot
        for name, file in whole.files.items():
            assert b"".join(found.files[name].pieces()) == b"".join(file.pieces())
