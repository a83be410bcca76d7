"""Reading images without mounting them: ISO 9660, initrds, squashfs superblocks; intact, unusual and damaged ones."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveos import newc, shapes, specials, tiny
from packing.site import Site, image_with_root, make_iso
from pxe_pack.image import liveos
from pxe_pack.image.initrd.reader import InitrdFacts, read_initrd
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.squashfs import Tree, superblock
from pxe_pack.squashfs import Image
from pxe_pack.tools import InputError

URL = "http://10.0.0.1/liveos.iso"
LONG = "long-" * 45 + "name"


@pytest.fixture(scope="module")
def odd_iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISO with names, depths and links that some readers get wrong."""
    where = tmp_path_factory.mktemp("odd")
    stage = where / "stage"
    deep = stage.joinpath(*(f"d{depth}" for depth in range(12)))
    deep.mkdir(parents=True)
    (deep / "treasure").write_text("found\n")
    (stage / LONG).write_text("long\n")
    (stage / "naïve 日本").write_text("utf-8\n")
    (stage / "UPPER.TXT").write_text("upper\n")
    (stage / "many").mkdir()
    for number in range(300):
        (stage / "many" / f"file-{number:03}").write_text(str(number))
    (stage / "empty").touch()
    (stage / "absolute").symlink_to("/usr/lib/x")
    (stage / "climbing").symlink_to("../.././a")
    (stage / "lengthy").symlink_to("/".join(["x" * 100] * 8))
    (stage / "UPPER.TXT").chmod(0o600)
    target = where / "odd.iso"
    command = ["xorriso", "-as", "mkisofs", "-V", "ODD", "-R", "-o", str(target), str(stage)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_names_depths_links_and_modes_of_an_iso(odd_iso: Path) -> None:
    with open_iso(odd_iso) as image:
        deep = "/".join(f"d{depth}" for depth in range(12))

        def content(path: str) -> bytes:
            return image.read(image.entries[path])

        assert image.volume_id == "ODD"
        assert content(f"{deep}/treasure") == b"found\n"
        assert content(LONG) == b"long\n"
        assert content("naïve 日本") == b"utf-8\n"
        assert content("empty") == b""
        assert [content(f"many/file-{number:03}") for number in range(300)] == [b"%d" % number for number in range(300)]
        assert image.entries["absolute"].target == "/usr/lib/x"
        assert image.entries["climbing"].target == "../.././a"
        assert image.entries["lengthy"].target == "/".join(["x" * 100] * 8)
        assert stat.S_ISLNK(image.entries["absolute"].mode)
        assert image.entries["UPPER.TXT"].mode == stat.S_IFREG | 0o600
        assert image.find("/upper.txt") is image.entries["UPPER.TXT"]
        assert image.find("nowhere") is None
        assert not [path for path in image.entries if "rr_moved" in path.lower() and "treasure" in path]


def test_a_directory_that_was_moved_is_listed_where_it_belongs(tmp_path: Path) -> None:
    """Rock Ridge moves directories deeper than eight levels to the top; CL and RE entries record where they belong."""
    stage = tmp_path / "stage"
    deep = stage.joinpath(*(f"d{depth}" for depth in range(10)))
    deep.mkdir(parents=True)
    (deep / "treasure").write_text("found\n")
    target = tmp_path / "moved.iso"
    command = ["xorriso", "-as", "mkisofs", "-R", "-rr_reloc_dir", "/rr_moved", "-o", str(target), str(stage)]
    subprocess.run(command, check=True, capture_output=True)
    assert b"CL\x0c\x01" in target.read_bytes()
    with open_iso(target) as image:
        (path,) = [path for path in image.entries if path.endswith("treasure")]
        assert path == "/".join(f"d{depth}" for depth in range(10)) + "/treasure"
        assert image.read(image.entries[path]) == b"found\n"


def test_part_of_a_file(odd_iso: Path) -> None:
    with open_iso(odd_iso) as image:
        entry = image.entries["UPPER.TXT"]
        assert image.read(entry, offset=2, size=3) == b"per"
        assert image.read(entry, offset=4, size=100) == b"r\n"
        assert image.read(entry, offset=100, size=1) == b""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_a_damaged_iso_is_an_error_and_not_a_crash(
    tmp_path: Path, small_iso: bytes, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(small_iso)
    for at, change in changes:
        place = 16 * 2048 + at % (len(data) - 16 * 2048)
        data[place : place + len(change)] = change
    path = tmp_path / "damaged.iso"
    path.write_bytes(data)
    try:
        with open_iso(path) as image:
            for entry in image.entries.values():
                if entry.is_file:
                    image.read(entry)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017  both outcomes are right


@pytest.fixture(scope="module")
def small_iso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    where = tmp_path_factory.mktemp("small")
    return make_iso(where / "small.iso", {"a/b/c.txt": "c", "a/d": "d", LONG: "e"}).read_bytes()[: 100 * 2048]


MEMBERS = [
    newc.Entry("usr/lib/dracut/modules.txt", stat.S_IFREG | 0o644, b"base\ndmsquash-live\nlivenet\n"),
    newc.Entry("usr/lib/dracut/hooks/pre-pivot/20-apply-live-updates.sh", stat.S_IFREG | 0o755, b"#!/bin/sh\n"),
    newc.Entry("usr/lib/systemd/libsystemd-shared-257.4-3.so", stat.S_IFREG | 0o755, b"\x7fELF"),
]
CPIO = newc.archive(MEMBERS)
EARLY = newc.archive([newc.Entry("kernel/x86/microcode/AuthenticAMD.bin", stat.S_IFREG | 0o644, b"\1" * 3001)])


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout


def facts_of(data: bytes) -> InitrdFacts:
    return read_initrd(lambda offset, size: data[offset : offset + size], name="initrd.img")


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": zstd,
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("early", [b"", EARLY, EARLY + bytes(512 - len(EARLY) % 512)])
def test_an_initrd_of_each_compression_with_microcode_before_it(compression: str, early: bytes) -> None:
    facts = facts_of(early + COMPRESSIONS[compression](CPIO) + bytes(1024))
    assert facts == InitrdFacts(
        compression=compression,
        readable=True,
        modules=frozenset({"base", "dmsquash-live", "livenet"}),
        livenet=True,
        dmsquash_live=True,
        applies_updates=True,
        systemd=257,
    )


def test_an_initrd_of_an_unknown_compression_is_said_to_be_so() -> None:
    assert facts_of(b"\x02\x21\x4c\x18 lz4") == InitrdFacts(compression="lz4", readable=False)


def test_a_large_initrd_is_streamed() -> None:
    large = newc.archive([newc.Entry("big", stat.S_IFREG | 0o644, bytes(40 << 20)), *MEMBERS])
    assert facts_of(zstd(large)).livenet
    assert facts_of(gzip.compress(large, 1)).livenet


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_a_damaged_initrd_is_an_error_and_not_a_crash(compression: str, data: st.DataObject) -> None:
    whole = bytearray(COMPRESSIONS[compression](CPIO))
    kind = data.draw(st.sampled_from(["cut", "change"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        del whole[place:]
    else:
        whole[place] ^= data.draw(st.integers(1, 255))
    try:
        facts_of(bytes(whole))
    except InputError as error:
        assert "cannot read the initrd initrd.img" in str(error)  # noqa: PT017  both outcomes are right


OPTIONS = [
    ("gzip", ["-Xcompression-level", "3", "-Xstrategy", "default,fixed"], ("level=3", "window=15", "default", "fixed")),
    ("xz", ["-Xbcj", "x86,arm", "-Xdict-size", "64K"], ("dictsize=65536", "x86", "arm")),
    ("zstd", ["-Xcompression-level", "2"], ("level=2",)),
    ("lzo", ["-Xalgorithm", "lzo1x_1"], ("algorithm=lzo1x_1", "level=0")),
    ("lz4", ["-Xhc"], ("hc",)),
    ("zstd", [], ()),
]


@pytest.mark.parametrize(("compressor", "given_options", "options"), OPTIONS)
def test_the_superblock_tells_how_it_was_made(
    tmp_path: Path, compressor: str, given_options: list[str], options: tuple[str, ...]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content\n" * 1000)
    target = tmp_path / "root.squashfs"
    command = ["mksquashfs", str(tmp_path / "tree"), str(target), "-comp", compressor, *given_options]
    subprocess.run([*command, "-mkfs-time", "77", "-no-exports", "-quiet"], check=True, capture_output=True)
    padded = tmp_path / "padded"
    padded.write_bytes(bytes(4096) + target.read_bytes())
    with padded.open("rb") as file:
        found = superblock(file, offset=4096)
        assert found
        assert superblock(file) is None
    assert (found.compressor, found.options, found.mkfs_time) == (compressor, options, 77)
    assert not found.exportable
    # tar2sqfs takes them as they are told
    again = tmp_path / "again"
    extra = ["-X", ",".join(options)] if options else []
    with subprocess.Popen(["sqfs2tar", "-r", ".", target], stdout=subprocess.PIPE) as reader:
        subprocess.run(["tar2sqfs", "-q", "-c", compressor, *extra, again], stdin=reader.stdout, check=True)
    with again.open("rb") as file:
        written = superblock(file)
    assert written
    assert written.options == options


def test_a_squashfs_that_is_damaged_behind_its_superblock_is_an_error(site: Site, tmp_path: Path) -> None:
    damaged = bytearray(site.image.read_bytes())
    with open_iso(site.image) as image:
        span = image.entries["liveos/rootfs.img"].spans[0]
    for at in range(span.offset + 96, span.offset + span.size, 7):
        damaged[at] ^= 0x55
    path = tmp_path / "damaged.iso"
    path.write_bytes(damaged)
    with path.open("rb") as file:
        root = Image.within(file.fileno(), path, offset=span.offset, size=span.size)
        with pytest.raises(InputError, match="damaged"):
            list(Tree(image=root).walk())


# Runs pxe-pack, and prints how often it has opened the file that is the first argument.
COUNT_OPENINGS = """
import os, sys
from pathlib import Path
image, *arguments = sys.argv[1:]
opened = []
def seen(event, args):
    if event == "open" and isinstance(args[0], (str, Path)) and os.fspath(args[0]) == image:
        opened.append(image)
sys.addaudithook(seen)
from pxe_pack import cli
code = cli.main(arguments)
print(len(opened), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("command", ["pack --dry-run", "show", "check"])
def test_an_image_is_opened_a_few_times_however_many_of_its_files_are_read(site: Site, command: str) -> None:
    site.image = Path(shutil.copy(site.image, site.folder / "liveos.iso"))
    packing = command.startswith("pack")
    arguments = site.command("--dry-run", "--quiet") if packing else [command, str(site.image), "--quiet"]
    run = [sys.executable, "-c", COUNT_OPENINGS, str(site.image), *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 3}, done.stderr
    assert int(done.stderr.split()[-1]) <= 4  # is it a squashfs? an archive (asked twice)? then to read it


def test_links_are_followed_as_inside_the_image(site: Site, tmp_path: Path) -> None:
    links = {"one": "two", "two": "/three/./../usr", "loop": "pool", "pool": "loop", "up": "../../../etc"}
    contents = [*tiny.tree(), *(specials.symlink(name, target) for name, target in links.items())]
    image = image_with_root(site.image, contents, tmp_path)
    with liveos.opened(image, boot_url=URL) as opened:
        tree = opened.liveos.tree
        assert tree.resolve("/one/lib/systemd") == "usr/lib/systemd"
        assert tree.resolve("up/passwd") == "etc/passwd"
        assert tree.resolve("/lib/nowhere/at/all") == "usr/lib/nowhere/at/all"
        tree.resolve("/loop/x")  # ends


def test_facts_of_a_root_filesystem(site: Site, tmp_path: Path) -> None:
    selinux = specials.Inode("etc/selinux/config", data=b"# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
    contents = [replace(inode, mode=inode.mode) for inode in tiny.tree()]
    image = image_with_root(site.image, [*contents, specials.folder("etc/selinux"), selinux], tmp_path)
    with liveos.opened(image, boot_url=URL) as opened:
        assert opened.facts.selinux == "enforcing"
        assert not opened.selinux_enforcing  # the kernel's arguments switch it off
        assert opened.facts.name == "Tiny LiveOS 1.0 (not bootable)"
        assert opened.machine == "x86_64"
        assert opened.systemd == tiny.SYSTEMD_VERSION
        assert opened.facts.glibc
        assert opened.facts.glibc >= (2, 31)


def test_every_shape_is_seen_for_what_it_is(tiny_guarded: Path, tiny_ext4: Path) -> None:
    with liveos.opened(tiny_guarded, boot_url=URL) as opened:
        assert (opened.root_format, opened.grub_source) == ("squashfs", "boot/grub2/grub.cfg")
        assert opened.liveos.superblock
        assert opened.liveos.superblock.compressor == shapes.SHAPES["ic16"].compressor
    with liveos.opened(tiny_ext4, boot_url=URL) as opened:
        assert opened.root_format == "ext4-in-squashfs"
        assert opened.facts.nested == "LiveOS/rootfs.img"
