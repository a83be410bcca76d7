"""The chain of Secure Boot, link by link: what `pxe-pack check` finds in layouts whose programs are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from liveos.cache import Cache
from packing import altered
from packing.signing import Authority, authority
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]
Found = Callable[[], dict[str, dict[str, str]]]

SIGNED_GRUB = Path("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed")
SBAT_HEADER = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"
SHA256 = bytes.fromhex("608648016503040201")  # the OID's content (RFC 5754)
DIGEST_INFO = (
    bytes.fromhex("3031300d06096086480165030402010500") + b"\x04\x20"
)  # what precedes a digest (RFC 8017, 9.2)


@pytest.fixture
def layout(site: Site, packs: Packs) -> Path:
    """A layout with Debian's shim and GRUB, as Debian signed them."""
    packs()
    shutil.copyfile(SIGNED_GRUB, site.output / "grubx64.efi")
    return site.output


@pytest.fixture
def found(layout: Path, capsys: pytest.CaptureFixture[str]) -> Found:
    """The findings about Secure Boot in the layout, by reference; the kernel, which is none for UEFI, is left out."""

    def run() -> dict[str, dict[str, str]]:
        cli.main(["check", str(layout), "--json", "--offline"])
        captured = capsys.readouterr()
        assert captured.err == ""
        findings = json.loads(captured.out.splitlines()[-1])["findings"]
        return {
            one["reference"]: one
            for one in findings
            if one["reference"].startswith("secure-boot")
            and not one["message"].startswith("boot/vmlinuz is not signed")
        }

    return run


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path, "Site Signing")


def _digest(program: bytes) -> bytes:
    """The digest in the first signature of `program`."""
    at = program.index(DIGEST_INFO) + len(DIGEST_INFO)
    return program[at : at + 32]


def _grub(folder: Path, *rows: str) -> bytes:
    """A GRUB of one's own with these rows of SBAT."""
    (folder / "sbat.csv").write_text(SBAT_HEADER + "".join(f"{row},x,x,1,https://x.example\n" for row in rows))
    return altered.grub(folder, "-p", "/boot/grub2", *(["--sbat", str(folder / "sbat.csv")] if rows else []))


def test_the_programs_of_one_distribution_accept_each_other(found: Found) -> None:
    assert found() == {}


def test_a_shim_with_altered_code_and_the_digests_of_it_is_not_taken_for_signed(
    layout: Path, found: Found, ours: Authority
) -> None:
    before = (layout / "bootx64.efi").read_bytes()
    name = before.index("grubx64.efi".encode("utf-16-le"))
    altered_shim = before[:name] + b"h" + before[name + 1 :]
    (layout / "bootx64.efi").write_bytes(altered_shim)
    assert "the program was modified after it was signed" in found()["secure-boot-changed"]["message"]

    new = _digest(ours.sign(_unsigned(altered_shim)))
    forged = altered_shim.replace(_digest(before), new)
    (layout / "bootx64.efi").write_bytes(forged)
    told = found()["secure-boot-changed"]
    assert "by Microsoft Windows UEFI Driver Publisher is not valid: its digest was modified" in told["message"]

    # the signed attributes have the digest of the content that has the program's digest
    for at in (at for at in range(len(before)) if before.startswith(DIGEST_INFO, at)):
        end = at + len(DIGEST_INFO) + 32
        for start in range(end - 200, end):
            forged = forged.replace(
                hashlib.sha256(before[start:end]).digest(), hashlib.sha256(forged[start:end]).digest()
            )
    (layout / "bootx64.efi").write_bytes(forged)
    told = found()["secure-boot-changed"]
    assert told["severity"] == "warning"
    assert (
        "by Microsoft Windows UEFI Driver Publisher is not valid: the signer's key did not make it" in told["message"]
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("grub,4",), "has the SBAT generation grub,4, but bootx64.efi accepts grub from 5 on"),
        (("grub,5", "grub.proxmox,x"), ""),
        ((), "has no valid SBAT section"),
        (("grub",), "has no valid SBAT section"),
        (("grub,x",), "grub,0"),
    ],
)
def test_a_grub_below_the_generation_that_shim_accepts_is_found(
    layout: Path, found: Found, ours: Authority, rows: tuple[str, ...], words: str
) -> None:
    plain = _grub(ours.key.parent, *rows)
    (layout / "grubx64.efi").write_bytes(ours.sign(plain))
    told = found()
    if words:
        assert told["secure-boot-sbat"]["severity"] == "warning"
        assert words in told["secure-boot-sbat"]["message"]
    else:
        assert "secure-boot-sbat" not in told
    (layout / "grubx64.efi").write_bytes(plain)
    assert {one["severity"] for one in found().values()} == {"note"}  # unsigned: it is not for Secure Boot


@pytest.fixture(scope="session")
def former_grub() -> Path:
    """Debian's signed GRUB before the one that its shim 16.1 accepts, by an older sbsign: from Debian, kept."""
    package = "grub-efi-amd64-signed=1+2.06+13+deb12u1"

    def fetch(partial: Path) -> None:
        with Cache().scratch() as work:
            done = subprocess.run(["apt-get", "-q", "download", package], cwd=work, check=False, capture_output=True)
            if done.returncode:
                pytest.skip(f"this machine's Debian sources do not have {package}")
            subprocess.run(["dpkg-deb", "--extract", *work.glob("*.deb"), work / "tree"], check=True)
            shutil.copyfile(work / "tree" / SIGNED_GRUB.relative_to("/"), partial)

    return Cache().get("grubnetx64-2.06-13+deb12u1.efi.signed", fetch)


def test_debians_shim_refuses_debians_former_grub(layout: Path, found: Found, former_grub: Path) -> None:
    shutil.copyfile(former_grub, layout / "grubx64.efi")
    told = found()
    assert told.keys() == {"secure-boot-sbat"}  # its signature is valid, and trusted
    assert told["secure-boot-sbat"]["severity"] == "warning"
    assert (
        "grubx64.efi has the SBAT generation grub,4, but bootx64.efi accepts grub from 5 on"
        in (told["secure-boot-sbat"]["message"])
    )


def test_a_shim_that_a_raised_sbat_level_refuses_is_found(layout: Path, found: Found) -> None:
    shim = (layout / "bootx64.efi").read_bytes()
    (layout / "bootx64.efi").write_bytes(shim.replace(b"\nshim,4,UEFI shim", b"\nshim,3,UEFI shim"))
    told = found()
    assert told["secure-boot-sbat-shim"]["severity"] == "warning"
    assert "bootx64.efi has the SBAT generation shim,3" in told["secure-boot-sbat-shim"]["message"]


def test_a_grub_that_shim_was_built_to_refuse_is_found(layout: Path, found: Found) -> None:
    shim = (layout / "bootx64.efi").read_bytes()
    grub = (layout / "grubx64.efi").read_bytes()
    owned = shim.index(struct.pack("<II", 0, 16 + 32), shim.index(b"Debian Secure Boot CA"))  # its digests' list
    first = owned + 8 + 16
    (layout / "bootx64.efi").write_bytes(shim[:first] + _digest(grub) + shim[first + 32 :])
    assert found()["secure-boot-revoked"]["severity"] == "warning"


def test_each_link_is_checked_against_what_the_one_before_it_trusts(
    layout: Path, found: Found, ours: Authority, tmp_path: Path
) -> None:
    grub = ours.sign(_grub(tmp_path, "grub,5"))
    (layout / "grubx64.efi").write_bytes(grub)
    told = found()
    assert told["secure-boot-untrusted"]["severity"] == "warning"
    assert (
        "grubx64.efi is signed by Site Signing, but bootx64.efi only trusts Debian"
        in (told["secure-boot-untrusted"]["message"])
    )
    shutil.copyfile(SIGNED_GRUB, layout / "grubx64.efi")
    (layout / "boot/vmlinuz").write_bytes(ours.sign(_grub(tmp_path)))  # any program for UEFI; a kernel needs no SBAT
    told = found()
    assert told.keys() == {"secure-boot-untrusted"}
    assert "boot/vmlinuz is signed by Site Signing" in told["secure-boot-untrusted"]["message"]
    for name in ("bootx64.efi", "grubx64.efi"):  # no shim: firmware has to trust it
        (layout / name).write_bytes(grub)
    told = found()
    assert told["secure-boot-own-key"]["severity"] == "note"
    assert "bootx64.efi is signed by Site Signing" in told["secure-boot-own-key"]["message"]


def test_a_name_of_microsofts_is_not_microsofts_signature(layout: Path, found: Found, tmp_path: Path) -> None:
    other = authority(tmp_path, "Microsoft Windows UEFI Driver Publisher")
    (layout / "bootx64.efi").write_bytes(other.sign(_unsigned((layout / "bootx64.efi").read_bytes())))
    told = found()["secure-boot-own-key"]
    assert told["severity"] == "warning"
    assert "signed by Microsoft Windows UEFI Driver Publisher, not under Microsoft's UEFI CA" in told["message"]


def _names_of_all_sections(program: bytes) -> bytes:
    """As many sections as can be, each with a name in a string table of 8 MiB."""
    (coff,) = struct.unpack_from("<I", program, 0x3C)
    changed = bytearray(program)
    struct.pack_into("<H", changed, coff + 6, 65535)
    struct.pack_into("<II", changed, coff + 12, len(program), 0)  # the symbol table, empty: names begin here
    (optional,) = struct.unpack_from("<H", program, coff + 20)
    changed += b"a" * (8 << 20)
    for index in range(65535):
        struct.pack_into("<8sIIII", changed, coff + 24 + optional + 40 * index, b"/4", 1, 1, 1, 0)
    return bytes(changed)


def _unsigned(program: bytes) -> bytes:
    (coff,) = struct.unpack_from("<I", program, 0x3C)
    (at,) = struct.unpack_from("<I", program, coff + 24 + 112 + 32)
    changed = bytearray(program[:at])
    struct.pack_into("<II", changed, coff + 24 + 112 + 32, 0, 0)
    return bytes(changed)


def _certificates(program: bytes, content: bytes) -> bytes:
    """The program with `content` at the start of its first signature."""
    (coff,) = struct.unpack_from("<I", program, 0x3C)
    (at,) = struct.unpack_from("<I", program, coff + 24 + 112 + 32)
    return program[: at + 8] + content + program[at + 8 + len(content) :]


def _many_certificates(program: bytes) -> bytes:
    """A signature of 32 MiB whose certificates have two bytes each."""
    (coff,) = struct.unpack_from("<I", program, 0x3C)
    (at,) = struct.unpack_from("<I", program, coff + 24 + 112 + 32)
    certificates = b"\xa0\x84" + struct.pack(">I", 32 << 20) + b"\x30\x00" * (16 << 20)
    blob = program[at + 8 : at + 8 + 137]  # up to the certificates
    blob = blob[:1] + b"\x84" + struct.pack(">I", len(blob) + len(certificates)) + blob[4:] + certificates
    blob += bytes(-len(blob) % 8)
    changed = bytearray(program[:at] + struct.pack("<IHH", len(blob) + 8, 0x0200, 2) + blob)
    struct.pack_into("<I", changed, coff + 24 + 112 + 36, len(blob) + 8)
    return bytes(changed)


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], set[str]]] = {
    "65,535 sections with names in the string table": (_names_of_all_sections, set()),
    "an unknown algorithm": (lambda one: one.replace(SHA256, SHA256[:-1] + b"\x7f"), {"secure-boot-unverified"}),
    "no PKCS #7": (lambda one: _certificates(one, b"\x30\x84\xff\xff\xff\xff"), {"secure-boot-changed"}),
    "an empty PKCS #7": (lambda one: _certificates(one, b"\x30\x00"), {"secure-boot-changed"}),
    "16 million certificates": (_many_certificates, {"secure-boot-changed"}),
    "certificates that are cut off": (lambda one: one[:-100], set()),
    "nothing but headers": (lambda one: one[:400], set()),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_program_is_told_of_within_bounds(layout: Path, found: Found, kind: str) -> None:
    damage, references = HOSTILE[kind]
    for name in ("bootx64.efi", "grubx64.efi"):
        path = layout / name
        path.write_bytes(damage(path.read_bytes()))
    start = time.monotonic()
    assert references <= found().keys()
    assert time.monotonic() - start < 20
