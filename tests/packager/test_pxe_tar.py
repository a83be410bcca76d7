"""A pxe-tar is safely unpacked next to the output, and packed like the folder it contains."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import pxedir, shapes
from packing.site import Site
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def tiny_pxe_tar() -> Path:
    """A pxe-tar as written by Image Customizer 0.16 and later. Shared, so do not write to it."""
    return shapes.cached(replace(shapes.SHAPES["pxe-dir"], contents="tiny", media="pxe-tar"))


def layout_of(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "SHA256SUMS")
    }


def test_a_pxe_tar_gives_the_layout_of_its_folder(
    site: Site, packs: Packs, tiny_pxe_tar: Path, tiny_pxe_dir: Path
) -> None:
    site.image = tiny_pxe_dir
    packs()
    expected = layout_of(site.output)
    site.image = tiny_pxe_tar
    packs()
    assert layout_of(site.output) == expected
    assert site.manifest()["image"]["name"] == tiny_pxe_tar.name  # type: ignore[index]
    assert not site.leftovers()


def repacked(folder: Path, target: Path, *, prefix: str = ".", more: Iterator[tarfile.TarInfo] | None = None) -> Path:
    """The folder as an archive with extra members, each with one byte of content."""
    with tarfile.open(target, "w") as out:
        out.add(folder, arcname=prefix)
        for member in more or ():
            member.size = 1 if member.isreg() else 0
            out.addfile(member, io.BytesIO(b"x"))
    return target


@pytest.mark.parametrize("command", [["zstd", "-q"], ["xz", "-0"], ["cat"]])
@pytest.mark.parametrize("prefix", [".", "my-pxe"])
def test_any_compression_and_one_folder_around_it(
    site: Site, packs: Packs, tiny_pxe_dir: Path, command: list[str], prefix: str
) -> None:
    plain = repacked(tiny_pxe_dir, site.folder / "plain", prefix=prefix)
    site.image = site.folder / "image.tar.any"
    with plain.open("rb") as source, site.image.open("wb") as target:
        subprocess.run(command, stdin=source, stdout=target, check=True)
    packs("--dry-run")
    assert not site.leftovers()


def member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


UNSAFE = {
    "climbs": ([member("../evil")], "a name that escapes it, '../evil'"),
    "climbs inside": ([member("boot/../../evil")], "a name that escapes it"),
    "absolute": ([member("/tmp/evil")], "a name that escapes it, '/tmp/evil'"),
    "device": ([member("boot/sda", kind=tarfile.BLKTYPE)], "contains a device or a pipe, boot/sda"),
    "pipe": ([member("boot/pipe", kind=tarfile.FIFOTYPE)], "contains a device or a pipe, boot/pipe"),
    "hard link out": ([member("boot/shadow", kind=tarfile.LNKTYPE, link="../../etc/shadow")], "a name that escapes it"),
    "hard link to nothing": ([member("boot/x", kind=tarfile.LNKTYPE, link="boot/y")], "which is not an earlier file"),
    "link out": (
        [member("boot/shadow", kind=tarfile.SYMTYPE, link="/etc/shadow")],
        "is a link to /etc/shadow, outside",
    ),
    "through a link": (
        [member("boot/way", kind=tarfile.SYMTYPE, link="/tmp"), member("boot/way/evil")],
        "contains boot/way twice, with different types",
    ),
    "twice": ([member("evil"), member("evil")], "contains evil twice"),
    "a file as a folder": ([member("evil"), member("evil/inside")], "twice, with different types"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_leads_out_of_a_pxe_tar_is_refused(site: Site, refused: Refused, tiny_pxe_dir: Path, kind: str) -> None:
    members, why = UNSAFE[kind]
    site.image = repacked(tiny_pxe_dir, site.folder / "evil.tar", more=iter(members))
    outside = sorted(site.folder.parent.iterdir())
    assert why in refused()
    assert sorted(site.folder.parent.iterdir()) == outside
    assert not Path("/tmp/evil").exists()


def test_a_pxe_tar_with_two_isos_is_refused(site: Site, refused: Refused, tiny_pxe_dir: Path) -> None:
    with tarfile.open(site.folder / "two.tar", "w") as out:
        out.add(tiny_pxe_dir, arcname=".")
        out.add(tiny_pxe_dir / pxedir.ISO, arcname="./another.iso")
    site.image = site.folder / "two.tar"
    said = refused()
    assert "error[image-two-isos]" in said
    assert f"{site.image} has more than one ISO" in said


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.9999])
def test_a_truncated_pxe_tar_is_refused(site: Site, refused: Refused, tiny_pxe_tar: Path, kept: float) -> None:
    whole = tiny_pxe_tar.read_bytes()
    site.image = site.folder / "part.tar.gz"
    site.image.write_bytes(whole[: int(len(whole) * kept)])
    assert "error[image-damaged]" in refused()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_pxe_tar_with_a_damaged_member_in_its_middle_is_refused(
    site: Site, refused: Refused, tiny_pxe_dir: Path, compress: Callable[[bytes], bytes]
) -> None:
    plain = bytearray(repacked(tiny_pxe_dir, site.folder / "plain", more=iter([member("last")])).read_bytes())
    at = plain.rindex(b"last\0")
    plain[at] ^= 0xFF
    site.image = site.folder / "image.tar.any"
    site.image.write_bytes(compress(bytes(plain)))
    assert "error[image-damaged]" in refused()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_pxe_tar_of_which_the_compressed_end_is_missing_is_refused(
    site: Site, refused: Refused, tiny_pxe_dir: Path, compress: Callable[[bytes], bytes]
) -> None:
    site.image = site.folder / "image.tar.any"
    site.image.write_bytes(compress(repacked(tiny_pxe_dir, site.folder / "plain").read_bytes())[:-4])
    assert "error[image-damaged]" in refused()


def test_a_compressed_file_that_is_no_archive_is_refused(site: Site, refused: Refused) -> None:
    site.image = site.folder / "noise.gz"
    site.image.write_bytes(b"\x1f\x8b\x08\0" + os.urandom(1000))
    assert "error[image-damaged]" in refused()


def test_a_disk_without_room_for_the_archive_is_said_before_it_is_full(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that claims to be larger than the disk; its bytes are never read."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    site.image = site.folder / "huge.tar"
    huge = member("huge")
    huge.size = 10 << 20
    site.image.write_bytes(huge.tobuf(format=tarfile.GNU_FORMAT) + bytes(4096))
    assert cli.main(site.command("--quiet")) == 2
    assert "error[disk-full]" in capsys.readouterr().err
    assert not site.leftovers()
