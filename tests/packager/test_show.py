"""`pxe-pack show`: every shape told by its content; boot loaders and their signatures; what a pack left; bad input."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from liveos import shapes, tiny
from packing import roots
from packing.bootloaders import debian
from packing.signing import authority
from packing.site import Site, files_of, make_iso
from pxe_pack import cli
from pxe_pack.image import kernel

Packs = Callable[..., str]
Shown = Callable[[Path], dict[str, Any]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """What `show --json` says of an image."""

    def run(image: Path) -> dict[str, Any]:
        assert cli.main(["show", str(image), "--json"]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert isinstance(result, dict)
        return result

    return run


@pytest.mark.parametrize("name", ["tiny", "tiny_guarded", "tiny_pxe_dir"])
def test_a_bootstrap_image_is_told_whole(request: pytest.FixtureRequest, shown: Shown, name: str) -> None:
    told = shown(request.getfixturevalue(name))
    assert (told["kind"], told["system"]) == ("bootstrap", "Tiny LiveOS 1.0 (not bootable)")
    assert (told["systemd"], told["machine"], told["selinux"]) == (tiny.SYSTEMD_VERSION, "x86_64", "none")
    assert told["root"]["format"] == "squashfs"
    assert [one["release"] for one in told["kernels"]] == [tiny.RELEASE]
    (initrd,) = told["initrds"]
    assert initrd["kind"] == "bootstrap"
    assert (initrd["livenet"], initrd["dmsquash_live"], initrd["url_lib"], initrd["curl"]) == (True,) * 4
    assert (initrd["network"], initrd["kernels"]) == (["network-legacy"], [tiny.RELEASE])
    assert not initrd["ca_bundle"]
    shim, grub = told["boot_loaders"]
    assert (shim["kind"], grub["kind"], grub["prefix"]) == ("shim", "GRUB", "/boot/grub2")
    assert {"efinet", "tftp"} <= set(grub["modules"])
    assert "Microsoft Windows UEFI Driver Publisher" in shim["signed_by"]
    assert shim["signature_intact"]
    assert shim["trusts"] == ["Debian Secure Boot CA"]
    assert [one.partition(",")[0] for one in shim["sbat"]] == ["sbat", "shim", "shim.debian"]
    assert (grub["signed_by"], grub["signature_intact"]) == ([], None)
    assert told["injected"] == []


@pytest.mark.parametrize("media", ["iso", "pxe-dir", "pxe-tar"])
def test_a_full_os_image_is_told_whole(shown: Shown, media: str) -> None:
    shape = replace(shapes.SHAPES["full-os"], contents="tiny", media=media)  # type: ignore[arg-type]  # a parameter
    told = shown(shapes.cached(shape))
    assert (told["kind"], told["root"]["format"], told["initrds"][0]["kind"]) == ("full-os", "cpio", "full-os")
    assert told["initrds"][0]["unpacked_size"] > 1_000_000
    assert told["glibc"]


def test_an_ext4_in_a_squashfs_says_what_cannot_be_seen(
    shown: Shown, tiny_ext4: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = shown(tiny_ext4)
    assert (told["root"]["format"], told["glibc"], told["selinux"]) == ("ext4-in-squashfs", None, "unknown")
    assert cli.main(["show", str(tiny_ext4)]) == 0
    assert "glibc unknown" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["directory", "tar", "squashfs"])
def test_a_root_filesystem_is_told_as_the_iso_that_is_made_of_it(
    tmp_path: Path, shown: Shown, machine_root: Path, form: str
) -> None:
    debian(machine_root)
    makers = {"directory": roots.folder, "tar": roots.tar, "squashfs": roots.squashfs}
    told = shown(makers[form](tmp_path / "root", roots.inodes()))
    assert (told["given"], told["kind"], told["root"]["format"]) == (form, "bootstrap", "squashfs")
    assert told["dhcp"] == "systemd-networkd (etc/systemd/network/20-dhcp.network)"
    assert [one["release"] for one in told["kernels"]] == [tiny.RELEASE]


@pytest.mark.parametrize("how", ["updates", "rootfs", "initrd"])
def test_what_a_pack_left_is_told_of_its_layout(
    site: Site, packs: Packs, shown: Shown, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    packs("--inject", how)
    (former,) = shown(site.output)["injected"]
    assert (former["how"], former["agent"], former["configured"]) == (how, "0.0.1", True)
    assert [(one["name"], one["version"]) for one in former["components"]] == [
        ("Python", "3.11.2"),
        ("OpenSSL", "3.0.17"),
    ]
    assert cli.main(["show", str(site.output)]) == 0
    assert "Python 3.11.2, OpenSSL 3.0.17" in capsys.readouterr().out


def test_the_text_names_what_matters(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(tiny)]) == 0
    said = capsys.readouterr().out
    for words in ("bootstrap, volume CDROM", "squashfs, gzip", "missing CA bundle", "GRUB, x86_64, not signed"):
        assert words in said
    assert "trusts Debian Secure Boot CA" in said


def test_a_signature_is_told_with_its_signer_and_whether_it_holds(tmp_path: Path, tiny: Path, shown: Shown) -> None:
    content: dict[str, str | bytes] = {**files_of(tiny)}
    grub = content["efi/boot/grubx64.efi"]
    assert isinstance(grub, bytes)
    signed = authority(tmp_path, "Site Signing").sign(grub)
    content["efi/boot/grubx64.efi"] = signed
    told = shown(make_iso(tmp_path / "signed.iso", content))["boot_loaders"][1]
    assert (told["signed_by"], told["signature_intact"]) == (["Site Signing"], True)
    at = signed.index(b"/boot/grub2\0")
    content["efi/boot/grubx64.efi"] = signed[:at] + b"/boot/grub3" + signed[at + 11 :]
    told = shown(make_iso(tmp_path / "changed.iso", content))["boot_loaders"][1]
    assert (told["signed_by"], told["signature_intact"], told["prefix"]) == (["Site Signing"], False, "/boot/grub3")


def test_arm64_kernels_tell_their_release_by_their_banner() -> None:
    banner = b"\0" * 4096 + b"Linux version 6.12.9-arm64 (builder@host) #1 SMP\n" + b"\0" * 64
    assert kernel.release(banner) == "6.12.9-arm64"
    packed = gzip.compress(banner)
    zboot = b"MZ\0\0zimg" + struct.pack("<II", 64, len(packed)) + bytes(8) + b"gzip".ljust(32, b"\0")
    assert kernel.release(zboot.ljust(64, b"\0") + packed) == "6.12.9-arm64"
    assert kernel.release(b"no kernel") == kernel.release(b"") == ""


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "image-not-iso"),
    "garbage": (lambda path: path.write_bytes(b"\x93" * 100_000), "image-not-iso"),
    "a folder without anything": (Path.mkdir, "image-no-grub"),
    "nothing": (Path.exists, "image-unreadable"),
    "a pipe": (os.mkfifo, "image-not-iso"),
    "an empty archive": (lambda path: path.write_bytes(gzip.compress(bytes(10240))), "image-no-grub"),
    "an archive that is none": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(5000)), "image-damaged"),
}


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    make, reference = BAD[kind]
    make(tmp_path / "given")
    assert cli.main([command, str(tmp_path / "given")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error[{reference}]: " in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize("kept", [0.2, 0.9])
def test_a_truncated_image_is_a_sentence(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], command: str, kept: float
) -> None:
    data = tiny.read_bytes()
    (tmp_path / "part.iso").write_bytes(data[: int(len(data) * kept)])
    assert cli.main([command, str(tmp_path / "part.iso")]) == 2
    assert "error[image-truncated]" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_what_may_not_be_read_is_a_sentence(command: str, *, folder: bool) -> None:
    """Without root's right to read what is closed, which an ordinary user has not anyway."""
    with tempfile.TemporaryDirectory() as name:
        given = Path(name) / "closed"
        given.mkdir() if folder else given.write_bytes(bytes(100_000))
        given.chmod(0)
        without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        run = [*without, sys.executable, "-m", "pxe_pack", command, str(given)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        given.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "error[image-unreadable]" in done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
