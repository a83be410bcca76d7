"""An image that was made to take all memory or all time is refused, and the error says which limit it exceeds.

What it has as text is shown so that it controls no terminal.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from liveos import newc, tiny
from liveos.specials import Inode
from packing import limited
from packing.site import Site, files_of, image_with_root, make_iso
from pxe_pack.image.limits import Limit

SECTOR = 2048
ROOT = Path(__file__).resolve().parents[2]


def said(folder: Path, image: Path) -> str:
    """What `show` prints about an image that it refuses, in one line."""
    done = limited.run("show", image, folder=folder)
    assert done.returncode == 2, done.stdout
    return " ".join(done.stderr.split())


def packed_tar(target: Path, members: Iterator[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with gzip.open(target, "wb", compresslevel=6) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return target


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member, b""


def regular(name: str, size: int, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = size
    return member, content


TARS: dict[str, tuple[Callable[[], Iterator[tuple[tarfile.TarInfo, bytes]]], Limit]] = {
    "names of 900 KB": (lambda: (link(f"{n}{'x' * 900_000}", "y") for n in range(100)), Limit.PATH),
    "targets of 900 KB": (lambda: (link(f"{n}", "y" * 900_000) for n in range(100)), Limit.PATH),
    "names of 64 MiB together": (lambda: (link(f"{n:05}" + "x" * 4000, "y") for n in range(17_000)), Limit.NAMES_SIZE),
    "too many folders inside one another": (lambda: (regular("a/" * 1500 + "b", 0) for _ in range(1)), Limit.DEPTH),
    "256 MiB of zeros": (lambda: (regular("a", 1 << 28, bytes(1 << 28)) for _ in range(1)), Limit.EXPANSION),
}


@pytest.mark.parametrize("what", TARS)
def test_an_archive_that_takes_too_much_is_refused_by_name(tmp_path: Path, what: str) -> None:
    make, limit = TARS[what]
    image = packed_tar(tmp_path / "image.tar.gz", make())
    assert f"{limit.most:,} {limit.of}" in said(tmp_path, image)
    assert list(tmp_path.iterdir()) == [image]  # nothing is left in TMPDIR


def test_an_archive_whose_holes_take_too_much_is_refused(tmp_path: Path) -> None:
    """A sparse member, which has no bytes in the archive; sizes are as GNU tar writes them."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(2 << 30)
    image = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", tmp_path, "--sparse", "-cf", image, "hole"], check=True)
    (tmp_path / "hole").unlink()
    assert image.stat().st_size < 100_000
    assert Limit.EXPANSION.of in said(tmp_path, image)


def test_a_decompressor_that_needs_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(bytes(20_000), format=lzma.FORMAT_XZ, filters=filters))
    (tmp_path / "image.tar.xz").write_bytes(with_dictionary(data))
    assert "Memory usage limit" in said(tmp_path, tmp_path / "image.tar.xz")


def with_dictionary(data: bytearray) -> bytes:
    """An .xz stream that asks for the largest dictionary of 4 GiB (xz file format, 5.3.1), its header's CRC right."""
    size = (data[12] + 1) * 4  # of the block header
    data[data.index(b"\x21\x01", 12, 12 + size) + 2] = 40
    data[12 + size - 4 : 12 + size] = struct.pack("<I", gzip.zlib.crc32(data[12 : 12 + size - 4]))  # type: ignore[attr-defined]
    return bytes(data)


def with_initrd(site: Site, initrd: bytes) -> Path:
    files: dict[str, str | bytes] = {**files_of(site.image), "boot/initrd.img": initrd}
    return make_iso(site.folder / "hostile.iso", files)


def entries(count: int) -> bytes:
    member = newc.member(newc.Entry("0000000", stat.S_IFREG | 0o644), inode=1)
    at = member.index(b"0000000\0", 100)
    return b"".join(b"%s%07d%s" % (member[:at], n, member[at + 7 :]) for n in range(count))


INITRDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "256 MiB of zeros": (
        lambda: gzip.compress(newc.archive([newc.Entry("a", stat.S_IFREG, bytes(1 << 28))])),
        Limit.EXPANSION.of,
    ),
    "256 MiB of zeros in small parts": (
        lambda: gzip.compress(newc.archive([newc.Entry("a", stat.S_IFREG, bytes(8 << 20))])) * 60,
        Limit.EXPANSION.of,
    ),
    "a block of xz that is 256 MiB": (
        lambda: lzma.compress(newc.archive([newc.Entry("a", stat.S_IFREG, bytes(1 << 28))]), preset=0),
        Limit.EXPANSION.of,
    ),
    "a dictionary of 4 GiB": (lambda: with_dictionary(bytearray(lzma.compress(bytes(9999)))), "Memory usage limit"),
    "too many files": (lambda: gzip.compress(entries(Limit.INITRD_FILES.most + 1), 1), Limit.INITRD_FILES.of),
    "too many parts": (lambda: gzip.compress(newc.archive([])) * 100, Limit.INITRD_PARTS.of),
    "a target of 8 MB": (
        lambda: gzip.compress(newc.archive([newc.Entry("a", stat.S_IFLNK, b"t" * (8 << 20))])),
        "the target of a link in it is too long",
    ),
    "too much to examine": (
        lambda: gzip.compress(
            newc.archive(
                newc.Entry(f"{n}/lib/dracut/modules.txt", stat.S_IFREG, (b"%d\n" % n).ljust(7 << 20)) for n in range(12)
            ),
            1,
        ),
        Limit.INITRD_KEPT.of,
    ),
}


@pytest.mark.parametrize("what", INITRDS)
def test_an_initrd_that_takes_too_much_is_refused_by_name(site: Site, what: str) -> None:
    make, sentence = INITRDS[what]
    assert sentence in said(site.folder, with_initrd(site, make()))


def test_a_cluster_chain_that_is_a_loop_is_refused(site: Site) -> None:
    """The first directory of the boot image goes on for ever, with names that are never the last.

    It is looked into where the ISO's own tree has no boot loaders.
    """
    image = site.folder / "loop.iso"
    command = ["xorriso", "-indev", str(site.image), "-outdev", str(image), "-boot_image", "any", "replay"]
    subprocess.run([*command, "-rm_r", "/efi", "--"], check=True, capture_output=True)
    data = bytearray(image.read_bytes())
    catalog = struct.unpack_from("<I", data, 17 * SECTOR + 0x47)[0] * SECTOR
    fat = max(struct.unpack_from("<I", data, at + 8)[0] for at in range(catalog, catalog + SECTOR, 32)) * SECTOR
    sector, per_cluster, reserved, fats, roots, small, _, size = struct.unpack_from("<HBHBHHBH", data, fat + 11)
    root = fat + (reserved + fats * size) * sector
    clusters = small // per_cluster
    entry = next(at for at in range(root, root + roots * 32, 32) if data[at + 11] & 0x10)
    (first,) = struct.unpack_from("<H", data, entry + 26)
    at = fat + reserved * sector
    if clusters < 4085:
        place = at + first + first // 2
        old = struct.unpack_from("<H", data, place)[0]
        struct.pack_into("<H", data, place, old & 0xF | first << 4 if first & 1 else old & 0xF000 | first)
    else:
        struct.pack_into("<H", data, at + 2 * first, first)
    content = root + roots * 32 + (first - 2) * per_cluster * sector
    for n in range(per_cluster * sector // 32):
        data[content + 32 * n : content + 32 * n + 32] = b"FILE%04d   \x20" % n + bytes(20)
    image.write_bytes(data)
    assert Limit.FAT_DIRECTORY.of in said(site.folder, image)


def test_a_directory_of_a_gigabyte_is_refused(site: Site) -> None:
    image = site.folder / "large.iso"
    data = bytearray(site.image.read_bytes())
    struct.pack_into("<I", data, 16 * SECTOR + 156 + 10, 1 << 30)
    image.write_bytes(data)
    with image.open("r+b") as file:
        file.truncate(2 << 30)
    assert Limit.ISO_DIRECTORY.of in said(site.folder, image)


def test_too_many_names_are_refused(tmp_path: Path) -> None:
    """The root directory of an ISO with so many empty files."""
    names = (b"%06d" % n for n in range(Limit.NAMES.most + 1))
    records = [bytes([40, 0]) + bytes(30) + b"\x06" + name + b"\0" for name in names]
    image = with_root_directory(tmp_path / "many.iso", records)
    assert f"{Limit.NAMES.most:,} {Limit.NAMES.of}" in said(tmp_path, image)


def test_too_many_extents_are_refused(tmp_path: Path) -> None:
    """One file of the root directory, in so many records that say that more follow (ECMA-119 9.1.6)."""
    record = bytes([34, 0]) + bytes(23) + b"\x80" + bytes(6) + b"\x01" + b"a"
    count = Limit.ISO_EXTENTS.most + 1
    image = with_root_directory(tmp_path / "many.iso", [record] * count)
    assert f"{Limit.ISO_EXTENTS.most} {Limit.ISO_EXTENTS.of}" in said(tmp_path, image)


def with_root_directory(target: Path, records: list[bytes]) -> Path:
    """An ISO whose root directory has these records, 50 in a sector."""
    data = bytearray(make_iso(target, {"a": "b"}).read_bytes())
    sectors = [b"".join(records[at : at + 50]).ljust(SECTOR, b"\0") for at in range(0, len(records), 50)]
    place = -(-len(data) // SECTOR)
    data += bytes(place * SECTOR - len(data)) + b"".join(sectors)
    struct.pack_into("<I4xI", data, 16 * SECTOR + 156 + 2, place, len(sectors) * SECTOR)
    target.write_bytes(data)
    return target


def test_a_kernel_of_a_gigabyte_is_refused(site: Site) -> None:
    image = site.folder / "large.iso"
    data = bytearray(site.image.read_bytes())
    at = data.index(b"VMLINUZ") - 33  # the name in the directory record, ECMA-119 9.1
    struct.pack_into("<I", data, at + 10, 1 << 30)
    image.write_bytes(data)
    with image.open("r+b") as file:
        file.truncate(2 << 30)
    assert Limit.KERNEL_SIZE.of in said(site.folder, image)


def root_with(site: Site, *more: Inode) -> Path:
    replaced = {one.path for one in more}
    return image_with_root(site.image, [*(one for one in tiny.tree() if one.path not in replaced), *more], site.folder)


def test_an_os_release_of_many_megabytes_is_refused(site: Site) -> None:
    image = root_with(site, Inode("usr/lib/os-release", data=b"A=b\n" * (10 << 20)))
    assert Limit.ROOT_TEXT.of in said(site.folder, image)


def test_too_many_network_files_are_refused(site: Site) -> None:
    more = (Inode(f"etc/systemd/network/{n:05}.network", data=b"[Match]\n") for n in range(2000))
    assert Limit.ROOT_NETWORKS.of in said(site.folder, root_with(site, *more))


def test_a_configuration_of_blank_lines_takes_no_time(site: Site) -> None:
    blank = b"\n" * (1 << 20)
    files = ("etc/systemd/network/00.network", "etc/resolv.conf", "etc/selinux/config", "etc/fstab")
    image = root_with(site, Inode("etc/selinux", tarfile.DIRTYPE, mode=0o755), *(Inode(p, data=blank) for p in files))
    assert limited.run("show", image, folder=site.folder).returncode == 0
    assert limited.run("check", "--offline", image, folder=site.folder).returncode in (0, 3)


def is_safe(text: str) -> bool:
    hidden = "\u034f\u115f\u2800\u3164\ufe0f\uffa0\U000e0101"  # which isprintable() lets through
    return text.replace("\n", "").isprintable() and not any(letter in text for letter in hidden)


def test_text_from_an_image_controls_no_terminal(site: Site) -> None:
    """Escapes, line breaks, right-to-left marks and bytes that are not UTF-8, in each text that is shown."""
    title = "Evil\x1b[2J\x1b]0;owned\x07\u202e\u200b\ufeff\u2066\u3164\x9b31m\r\ninjected  nothing"
    image = root_with(site, Inode("usr/lib/os-release", data=f'PRETTY_NAME="{title}"\n'.encode()))
    data = bytearray(image.read_bytes())
    data[16 * SECTOR + 40 : 16 * SECTOR + 72] = b"\x1b[31mRED\nloader    none\x9b".ljust(32)
    image.write_bytes(data)
    shown = limited.run("show", image, folder=site.folder)
    assert shown.returncode == 0, shown.stderr
    assert is_safe(shown.stdout)
    assert sum(line.startswith("injected") for line in shown.stdout.splitlines()) == 1
    assert not any(line.startswith("loader    none") for line in shown.stdout.splitlines())
    as_json = limited.run("--json", "show", image, folder=site.folder)
    assert is_safe(as_json.stdout)
    assert "\x1b" in json.loads(as_json.stdout.splitlines()[-1])["system"]  # nothing is lost


def test_names_on_a_medium_hide_nothing(site: Site) -> None:
    """A name that reads as another one is shown with blanks, and is not served: its URL would read as the other's."""
    names = ["docs/exe.\u202efdp", "docs/read\u200bme", "\ufeffnotes", "docs/\u3164"]
    image = make_iso(site.folder / "odd.iso", {**files_of(site.image), **dict.fromkeys(names, b"x")})
    done = limited.run("show", image, folder=site.folder)
    assert is_safe(done.stdout)
    site.image = image
    done = limited.run(*site.command("--dry-run"), folder=site.folder)
    assert done.returncode == 0
    assert is_safe(done.stdout + done.stderr)
    assert "(a name that contains an invisible character)" in " ".join(done.stderr.split())
    assert r"\u202e" in done.stderr


def test_names_from_an_image_control_no_terminal_in_an_error(site: Site) -> None:
    files: dict[str, str | bytes] = {**files_of(site.image)}
    del files["boot/grub2/grub-pxe.cfg"]
    files["boot/grub2/grub.cfg"] = "menuentry x {\n linux '/boot/\x1b[2J\x07' root=live:x\n}\n"
    done = limited.run("show", make_iso(site.folder / "odd.iso", files), folder=site.folder)
    assert done.returncode == 2
    assert is_safe(done.stderr)


def test_the_documentation_lists_every_limit() -> None:
    text = (ROOT / "docs/images.md").read_text()
    rows = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in text.splitlines() if line.startswith("|")}
    assert {(limit.subject, f"{limit.most:,}", limit.of) for limit in Limit} <= rows
