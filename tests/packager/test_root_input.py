"""A root filesystem as the input image: the result for a folder, a tar and a squashfs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from liveos import newc, tiny
from liveos.specials import Inode
from packing import roots
from packing.bootloaders import debian
from packing.site import BOOT_URL, Site, files_of, take_out
from packing.trees import tree_of
from packing.walk import walked
from pxe_pack.image.iso import eltorito
from pxe_pack.image.iso.reader import open_iso

Packs = Callable[..., str]
Refused = Callable[..., str]
MAKERS = {"directory": roots.folder, "tar": roots.tar, "squashfs": roots.squashfs}


@pytest.fixture(autouse=True)
def installed(machine_root: Path) -> None:
    """Boot loaders on this machine, for a root filesystem without any."""
    debian(machine_root)


@pytest.mark.parametrize("form", MAKERS)
def test_a_root_filesystem_becomes_a_layout_that_boots_it(site: Site, packs: Packs, form: str) -> None:
    site.image = MAKERS[form](site.folder / "root", roots.inodes())
    packs()
    kernel, initrd = f"/boot/vmlinuz-{tiny.RELEASE}", f"/boot/initrd-{tiny.RELEASE}.img"
    assert walked(site.output) == [
        *("/bootx64.efi", "/grubx64.efi", "/grub/grub.cfg", "/boot/grub2/grub.cfg"),
        *(kernel, initrd),
    ]
    text = (site.output / "boot/grub2/grub.cfg").read_text()
    assert f"root=live:{BOOT_URL} rd.live.image rd.live.dir=liveos rd.live.squashimg=rootfs.img" in text
    assert "quiet console=ttyS0 'site=a;b' ip=dhcp" in text
    assert "UUID" not in text
    inside = files_of(site.iso)
    assert f"root=live:{BOOT_URL}" in inside["boot/grub2/grub-pxe.cfg"].decode()
    assert "root=live:CDLABEL=LIVEOS" in inside["boot/grub2/grub.cfg"].decode()
    for config in ("boot/grub2/grub.cfg", "boot/grub2/grub-pxe.cfg"):
        subprocess.run(["grub-script-check"], input=inside[config], check=True)
    found = tree_of(take_out(site.iso, "liveos/rootfs.img", site.folder / "root.squashfs"))
    assert "usr/lib/pxe-fetch/pxe-fetch" in found
    assert site.manifest()["inject"]["how"] == "rootfs"  # type: ignore[index]  # of a document
    assert {(one.uid, one.gid) for path, one in found.items() if path.startswith("usr/")} == {(0, 0)}


def test_the_iso_that_is_made_boots_by_uefi_too(site: Site, packs: Packs) -> None:
    site.image = roots.folder(site.folder / "root", roots.inodes())
    packs()
    report = subprocess.run(
        ["xorriso", "-indev", site.iso, "-report_el_torito", "plain"], capture_output=True, text=True, check=True
    ).stdout
    assert "UEFI" in report
    with open_iso(site.iso) as image:
        assert image.volume_id == "LIVEOS"
        (fat,) = eltorito.efi_images(image)
        names = sorted(path.lower() for path, _ in fat.files())
        assert names == [
            "efi/boot/bootx64.efi",
            "efi/boot/grubx64.efi",
            "grub/grub.cfg",
        ]
        assert fat.read("EFI/BOOT/BOOTX64.EFI") == (site.output / "bootx64.efi").read_bytes()
        redirector = fat.read("grub/grub.cfg")
    assert redirector
    assert b"search --no-floppy --label LIVEOS --set=root" in redirector
    subprocess.run(["grub-script-check"], input=redirector, check=True)


def test_owners_devices_labels_and_capabilities_of_a_tar_are_kept(site: Site, packs: Packs) -> None:
    labelled = Inode("etc/labelled", data=b"x", xattrs={"security.selinux": b"system_u:object_r:etc_t:s0\0"})
    contents = [*roots.inodes(), labelled]
    site.image = roots.tar(site.folder / "root.tar", contents)
    given = tree_of(roots.squashfs(site.folder / "given.squashfs", contents))
    packs("--inject", "updates")
    found = tree_of(take_out(site.iso, "liveos/rootfs.img", site.folder / "root.squashfs"))
    assert {path: one for path, one in found.items() if path} == {path: one for path, one in given.items() if path}
    assert found["etc/labelled"].xattrs


def test_a_squashfs_stays_as_it_is(site: Site, packs: Packs) -> None:
    site.image = roots.squashfs(site.folder / "root.squashfs", roots.inodes())
    packs("--inject", "updates")
    assert take_out(site.iso, "liveos/rootfs.img", site.folder / "out").read_bytes() == site.image.read_bytes()
    inputs = site.manifest()["inputs"]
    assert isinstance(inputs, list)
    digest = hashlib.sha256(site.image.read_bytes()).hexdigest()
    assert [one["sha256"] for one in inputs if one["role"] == "image"] == [digest]
    assert [one["role"] for one in inputs] == ["made-iso", "image", "config"]


def test_the_same_folder_gives_the_same_bytes(site: Site, packs: Packs) -> None:
    site.image = roots.folder(site.folder / "root", roots.inodes())
    packs()
    first = (site.output / "SHA256SUMS").read_bytes()
    environment = {**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-c", _PACK, str(site.folder.parent), *site.command("--quiet")]
    command[3] = str(sys.modules["pxe_pack.loaders"].ROOT)
    subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh", *command], env=environment, check=True)
    assert (site.output / "SHA256SUMS").read_bytes() == first


_PACK = """
import sys
from pathlib import Path
from pxe_pack import cli, loaders
loaders.ROOT = Path(sys.argv[1])
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("packer", ["gzip", "xz", "bzip2", "zstd"])
def test_a_tar_may_be_compressed(site: Site, packs: Packs, packer: str) -> None:
    plain = roots.tar(site.folder / "root.tar", roots.inodes())
    site.image = site.folder / "root.tar.x"
    with site.image.open("wb") as target:
        subprocess.run([packer, "-c", plain], stdout=target, check=True)
    packs()
    assert "liveos/rootfs.img" in files_of(site.iso)


def test_its_url_is_asked_for_before_anything_is_made(site: Site, refused: Refused) -> None:
    site.image = roots.folder(site.folder / "root", roots.inodes(boot=False))
    site.pack = {"boot_url": None}
    assert "error[boot-url-missing]" in refused()


def test_a_file_that_may_not_be_read_is_named_before_anything_is_made(site: Site) -> None:
    site.image = roots.folder(site.folder / "root", roots.inodes())
    (site.image / "etc/shadow").chmod(0)
    command = [sys.executable, "-m", "pxe_pack", *site.command("--quiet")]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command] if os.geteuid() == 0 else command,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert (
        f"error[root-unreadable]: cannot read the root filesystem {site.image}: {site.image}/etc/shadow" in done.stderr
    )
    assert "hint: create a tar of it as root" in done.stderr


def test_nothing_in_a_folder_is_written_to(site: Site, packs: Packs) -> None:
    site.image = roots.folder(site.folder / "root", roots.inodes())
    before = {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in site.image.rglob("*")}
    packs()
    assert {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in site.image.rglob("*")} == before


@pytest.mark.parametrize("form", MAKERS)
def test_one_without_a_kernel_is_refused(site: Site, refused: Refused, form: str) -> None:
    site.image = MAKERS[form](site.folder / "root", roots.inodes(boot=False))
    assert "error[root-no-kernel]" in refused()


@pytest.mark.parametrize("form", MAKERS)
def test_one_without_an_initrd_is_refused_with_the_command_that_makes_one(
    site: Site, refused: Refused, form: str
) -> None:
    contents = [one for one in roots.inodes() if "initramfs" not in one.path]
    site.image = MAKERS[form](site.folder / "root", contents)
    said = refused()
    assert "error[root-no-initrd]" in said
    assert f"dracut --no-hostonly --add 'livenet dmsquash-live' --kver {tiny.RELEASE}" in said


@pytest.mark.parametrize("form", MAKERS)
def test_one_whose_initrd_boots_no_liveos_is_refused(site: Site, refused: Refused, form: str) -> None:
    poor = newc.archive([newc.Entry("init", 0o100755, b"#!/bin/sh\n")])
    contents = [one for one in roots.inodes() if "initramfs" not in one.path]
    contents.append(Inode(f"boot/initramfs-{tiny.RELEASE}.img", data=poor))
    site.image = MAKERS[form](site.folder / "root", contents)
    assert "has no livenet and no dmsquash-live" in refused()


@pytest.mark.parametrize("form", MAKERS)
def test_one_without_systemd_is_refused(site: Site, refused: Refused, form: str) -> None:
    contents = [one for one in roots.inodes() if "libsystemd-shared" not in one.path]
    site.image = MAKERS[form](site.folder / "root", contents)
    assert "error[image-no-systemd]" in refused()


def test_an_empty_kernel_is_refused(site: Site, refused: Refused) -> None:
    contents = [one for one in roots.inodes() if one.path != f"boot/vmlinuz-{tiny.RELEASE}"]
    contents.append(Inode(f"boot/vmlinuz-{tiny.RELEASE}"))
    site.image = roots.tar(site.folder / "root.tar", contents)
    assert "is not a regular file, or is empty" in refused()


def test_a_tar_that_leads_out_is_refused(site: Site, refused: Refused) -> None:
    site.image = roots.tar(site.folder / "root.tar", [*roots.inodes(), Inode("usr/../../evil", data=b"x")])
    assert "error[image-tar-unsafe]" in refused()


@pytest.mark.parametrize("kept", [0.6, 0.99])
def test_a_tar_that_ends_too_soon_is_refused(site: Site, refused: Refused, kept: float) -> None:
    whole = roots.stream(roots.inodes())
    site.image = site.folder / "root.tar"
    site.image.write_bytes(whole[: int(len(whole) * kept)])
    assert "error[image-damaged]" in refused()


def test_a_tar_with_a_damaged_member_in_its_middle_is_refused(site: Site, refused: Refused) -> None:
    damaged = bytearray(roots.stream([*roots.inodes(), Inode("usr/last", data=b"x")]))
    damaged[damaged.rindex(b"usr/last\0")] ^= 0xFF
    site.image = site.folder / "root.tar"
    site.image.write_bytes(damaged)
    assert "error[image-damaged]" in refused()


def test_a_squashfs_that_ends_too_soon_is_refused(site: Site, refused: Refused) -> None:
    whole = roots.squashfs(site.folder / "whole", roots.inodes()).read_bytes()
    (site.folder / "whole").unlink()
    site.image = site.folder / "root.squashfs"
    site.image.write_bytes(whole[: len(whole) // 2])
    assert "error[squashfs-corrupt]" in refused()
