"""What GRUB or the kernel would not do with grub.cfg is changed by packing, or said before anything is written."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from packing.bootloaders import grub
from packing.grub_emu import tried
from packing.site import BOOT_URL, Site, files_of, make_iso
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]


def edited(site: Site, before: str, after: str) -> None:
    """Change the image's configurations of GRUB."""
    files: dict[str, str | bytes] = {**files_of(site.image)}
    for name in ("boot/grub2/grub.cfg", "boot/grub2/grub-pxe.cfg"):
        text = files[name]
        assert isinstance(text, bytes)
        files[name] = text.replace(before.encode(), after.encode())
    site.image = make_iso(site.folder / "edited.iso", files)


def findings(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, str]:
    """Reference -> message of each finding of `check`."""
    capsys.readouterr()
    cli.main(["check", *map(str, arguments), "--offline", "--json"])
    return {one["reference"]: one["message"] for one in json.loads(capsys.readouterr().out)["findings"]}


def test_a_command_that_the_layouts_grub_lacks_becomes_one_that_it_has(site: Site, packs: Packs) -> None:
    edited(site, "\tlinux ", "\tlinuxefi ")
    edited(site, "\tinitrd ", "\tinitrdefi ")
    packs()
    text = (site.output / "boot/grub2/grub.cfg").read_text()
    assert "\tlinux /boot/vmlinuz" in text
    assert "\tinitrd /boot/initrd.img" in text
    assert "efi /boot" not in text
    assert "kernel boot/vmlinuz" in (site.output / "boot.ipxe").read_text()


def test_a_command_that_the_layouts_grub_has_stays(site: Site, packs: Packs) -> None:
    edited(site, "\tlinux ", "\tlinuxefi ")
    loaders = site.folder / "loaders"
    has_it = Path("/usr/lib/grub/x86_64-efi/linuxefi.mod").exists()  # GRUB 2.12 of Debian 13 has not
    modules = "normal linux efinet net tftp http test echo loadenv true" + " linuxefi" * has_it
    grub(loaders / "grubx64.efi", modules=modules)
    packs("--boot-loader", loaders)
    assert f"\tlinux{'efi' * has_it} /boot/vmlinuz" in (site.output / "boot/grub2/grub.cfg").read_text()


def test_a_command_line_that_packing_makes_too_long_is_refused_with_its_length(site: Site, refused: Refused) -> None:
    edited(site, " rd.live.image", f" rd.live.image site={'y' * 1800}")
    site.pack = {"boot_url": f"http://10.0.0.1/{'d' * 200}/liveos.iso"}
    said = " ".join(refused().split())
    assert "error[command-line-too-long]" in said
    assert "bytes, but the kernel takes 2,047; these arguments would be lost: " in said
    assert "ip=dhcp" in said


def test_a_command_line_of_just_the_kernels_limit_is_packed(site: Site, packs: Packs) -> None:
    edited(site, " rd.live.image", " rd.live.image site=")
    packs()
    text = (site.output / "boot/grub2/grub.cfg").read_text()
    (line,) = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.lstrip().startswith("linux ")]
    room = 2047 - len(f"BOOT_IMAGE={line}")
    edited(site, " site=", f" site={'y' * room}")
    packs()
    assert "y" * room in (site.output / "boot/grub2/grub.cfg").read_text()


def test_a_relocation_that_makes_the_command_line_too_long_changes_nothing(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(site, " rd.live.image", f" rd.live.image site={'y' * 1700}")
    packs()
    before = {path: path.read_bytes() for path in site.output.rglob("*") if path.is_file()}
    url = f"http://10.0.0.1/{'d' * 300}/liveos.iso"
    assert cli.main(["relocate", str(site.output), "--boot-url", url]) == 2
    assert "error[command-line-too-long]" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in site.output.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("given", "url", "sentence"),
    [
        (
            "ip=eth0:dhcp",
            "http://[2001:db8::1]/x.iso",
            "has ip=eth0:dhcp, with which a node cannot reach http://[2001:",
        ),
        ("ip=dhcp6", BOOT_URL, "has ip=dhcp6, with which a node cannot reach http://10.0.0.1"),
    ],
)
def test_a_network_of_the_other_kind_is_refused(
    site: Site, refused: Refused, given: str, url: str, sentence: str
) -> None:
    edited(site, " ip=dhcp", "")
    edited(site, " rd.live.image", f" rd.live.image {given}")
    site.pack = {"boot_url": url}
    assert sentence in " ".join(refused().split())


def test_a_repack_for_the_other_kind_of_address_changes_the_argument_of_ours(site: Site, packs: Packs) -> None:
    edited(site, " rd.live.image", " rd.live.image ip=dhcp")
    site.pack = {"boot_url": "http://[2001:db8::1]/x.iso"}
    packs()
    text = (site.output / "boot/grub2/grub.cfg").read_text()
    assert "ip=either6" in text
    assert "ip=dhcp" not in text


def test_a_grub_without_dhcpv6_is_told_of(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    loaders = site.folder / "loaders"
    grub(loaders / "grubx64.efi", modules="normal linux efinet net tftp http test echo loadenv true")
    site.pack = {"boot_url": "http://[2001:db8::1]/x.iso", "boot_loader": "loaders"}
    site.write_config()
    found = findings(capsys, site.image, "--agent-config", site.config)
    strings = subprocess.run(["strings", loaders / "grubx64.efi"], check=True, capture_output=True, text=True).stdout
    assert ("grub-no-ipv6" in found) == ("net_bootp6" not in strings.split())


def test_host_names_in_urls_are_told_of(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.pack = {"boot_url": "http://boot.lan/x.iso"}
    artifact = {"name": "m", "url": "http://files.lan/m", "sha256": "0" * 64, "dest": "/srv/m"}
    site.rest = {"artifacts": [artifact]}
    site.write_config()
    found = findings(capsys, site.image, "--agent-config", site.config)
    assert found["url-host-name"] == "nodes have to look up boot.lan, files.lan, so DHCP must announce a DNS server"
    site.pack, site.rest = {}, {"artifacts": [{**artifact, "url": "http://10.0.0.1/m"}]}
    site.write_config()
    assert "url-host-name" not in findings(capsys, site.image, "--agent-config", site.config)


LIVE = "root=live:LABEL=CDROM rd.live.image rd.live.dir=liveos rd.live.squashimg=rootfs.img"
MENU = """\
set timeout=0
set default=1
menuentry "first" {
	linux /boot/vmlinuz @ first
	initrd /boot/initrd.img
}
menuentry "second" {
	linux /boot/vmlinuz @ second
	initrd /boot/initrd.img
}
""".replace("@", LIVE)


def packed(site: Site, packs: Packs, grub_cfg: str, **others: str) -> str:
    """The layout's grub.cfg, packed from an image with this one and other files in boot/."""
    medium: dict[str, str | bytes] = {**files_of(site.image), "boot/grub2/grub.cfg": grub_cfg}
    del medium["boot/grub2/grub-pxe.cfg"]
    medium |= {f"boot/{name}.cfg": text for name, text in others.items()}
    site.image = make_iso(site.folder / "own.iso", medium)
    packs()
    return (site.output / "boot/grub2/grub.cfg").read_text()


def booted(site: Site, text: str) -> list[str]:
    """The words that GRUB's `linux` gets first, of a layout's grub.cfg."""
    folder = site.folder / "emulated"
    folder.mkdir()
    return tried(text, folder)[0]


def test_a_menu_behind_configfile_is_a_submenu_of_the_layout(site: Site, packs: Packs) -> None:
    text = packed(site, packs, 'menuentry "more" {\n\tconfigfile /boot/more.cfg\n}\nset timeout=0\n', more=MENU)
    assert 'submenu "more" {' in text
    assert "configfile" not in text
    assert "second" in booted(site, text)
    assert " second" in (site.output / "boot.ipxe").read_text().split(":entry1\n")[1].split("\n")[1]
    assert "goto entry1\n" in (site.output / "boot.ipxe").read_text()


def test_a_branch_for_another_platform_needs_no_files_and_sets_nothing(site: Site, packs: Packs) -> None:
    text = packed(
        site,
        packs,
        'if [ "$grub_platform" = "efi" ]; then\n\tset kernel=vmlinuz\nelse\n\tset kernel=vmlinuz-bios\nfi\n'
        'if [ "${grub_platform}" = pc ]; then\n\tmenuentry bios { linux16 /boot/bios; }\nfi\n'
        "menuentry efi {\n\tlinux /boot/$kernel " + LIVE + "\n\tinitrd /boot/initrd.img\n}\n"
        "set timeout=0\n",
    )
    assert "linux /boot/$kernel " in text
    assert "bios {" not in text
    assert "kernel boot/vmlinuz " in (site.output / "boot.ipxe").read_text()


def test_an_entry_may_use_what_is_set_behind_it(site: Site, packs: Packs) -> None:
    entry = "menuentry a {\n\tlinux /boot/$k " + LIVE + " $o\n\tinitrd /boot/initrd.img\n}\n"
    text = packed(site, packs, entry + "set k=vmlinuz\nset o=quiet\nset timeout=0\n")
    words = booted(site, text)
    assert words[0] == "/boot/vmlinuz"
    assert "quiet" in words
    assert f"root=live:{BOOT_URL}" in words


def test_a_submenu_without_the_variable_it_needs_is_refused(site: Site, refused: Refused) -> None:
    entry = "menuentry a {\n\tlinux /boot/$k " + LIVE + "\n\tinitrd /boot/initrd.img\n}\n"
    medium: dict[str, str | bytes] = {**files_of(site.image)}
    del medium["boot/grub2/grub-pxe.cfg"]
    medium["boot/grub2/grub.cfg"] = "set k=vmlinuz\nsubmenu s {\n" + entry + "}\n"
    site.image = make_iso(site.folder / "own.iso", medium)
    said = " ".join(refused().split())
    assert "error[grub-no-file]: the entry 'a' loads /boot/, which is not in the layout" in said
    assert "a submenu has only the variables that are exported" in said


def test_a_script_for_ipxe_that_boots_another_entry_is_told_of(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(site, packs, 'load_env\nset default="${saved_entry}"\n' + MENU.replace("set default=1\n", ""))
    assert "ipxe-differs" not in findings(capsys, site.output)
    (site.output / "boot/grub2/grubenv").write_text("# GRUB Environment Block\nsaved_entry=second\n".ljust(1024, "#"))
    assert "ipxe-differs" in findings(capsys, site.output)
    assert cli.main(["relocate", str(site.output), "--boot-url", BOOT_URL, "--quiet"]) == 0
    assert "goto entry1\n" in (site.output / "boot.ipxe").read_text()
    assert "ipxe-differs" not in findings(capsys, site.output)
