"""What is fuzzed: each reader of the packager, with what it reads when it is given something sound."""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fuzz import inputs, server_logs, trust
from fuzz.inputs import Input
from pxe_pack import liveiso
from pxe_pack.config_file import read_config
from pxe_pack.console import console
from pxe_pack.image import archive, kernel, networking, rootfs, squashfs, units
from pxe_pack.image.bootloader import boot_loaders
from pxe_pack.image.efi import examined
from pxe_pack.image.fat import Fat, FatError
from pxe_pack.image.file_contexts import FileContexts, parse
from pxe_pack.image.grub.config import find_network_config
from pxe_pack.image.initrd.reader import read_initrd
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.iso.udf import has_udf, udf_span
from pxe_pack.image.media import folder
from pxe_pack.image.pe.certificates import issued, name
from pxe_pack.image.rootfs_source import detect_rootfs
from pxe_pack.image.tree import RootTree
from pxe_pack.inject.iso_record import read_record
from pxe_pack.layout.layout import Layout
from pxe_pack.lock.lockfile import read_lock
from pxe_pack.show import document, lines, report_on
from pxe_pack.squashfs import Image, graft, prune
from pxe_pack.tools import InputError, WorkError

EXPECTED = (InputError, WorkError, FatError)  # how a reader may refuse an input
_SOME = 1 << 20  # bytes of a file that are read


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader."""

    sound: Callable[[], list[Input]]  # what it can read
    read: Callable[[Path], None]  # reads the file at the path; raises one of EXPECTED, or OSError for a name too long
    words: tuple[bytes, ...] = ()  # inserted into texts


def _iso(path: Path) -> None:
    with open_iso(path) as image:
        for entry in list(image.entries.values())[:100]:
            image.read(entry, size=_SOME)
            image.find(entry.path.upper())
            image.below(entry.path)
        boot_loaders(image)


def _udf(path: Path) -> None:
    with open_iso(path) as image:
        if has_udf(image):
            for name in ("LiveOS/squashfs.img", "liveos", "LiveOS/squashfs.img/x"):
                if (span := udf_span(image, name)) and not 0 <= span.size < 1 << 64:
                    raise AssertionError("a size that no file has")


def _fat(path: Path) -> None:
    data = path.read_bytes()
    fat = Fat(lambda offset, size: data[offset : offset + size])
    for path_inside, _ in fat.files():
        fat.read(path_inside)


def _tar(path: Path) -> None:
    detect_rootfs(path)
    if not archive.is_archive(path):
        return
    with tempfile.TemporaryDirectory() as into:
        unpacked = archive.unpack(path, Path(into))
        folder(unpacked)


def _cpio(path: Path) -> None:
    data = path.read_bytes()
    facts = read_initrd(lambda offset, size: data[offset : offset + size], name="initrd", keep=rootfs.is_system_file)
    _tree(facts.tree)


def _tree(tree: RootTree) -> None:
    rootfs.read_root(tree)
    networking.dhcp(tree, units.enabled(tree))
    units.installed(tree)
    for count, inode in enumerate(tree.walk()):
        if count > 60:
            break
        tree.resolve(inode.path)
        if stat.S_ISREG(inode.mode):
            with contextlib.suppress(*EXPECTED):
                tree.cat(inode.path)


def _squashfs(path: Path) -> None:
    with path.open("rb") as file:
        squashfs.superblock(file)
    with Image.open(path) as image:
        tree = squashfs.Tree(image=image, with_graft=True)
        _tree(tree)
        for count, inode in enumerate(tree.walk()):
            if count > 60:
                break
            tree.xattrs(inode.path)


def _graft_record(path: Path) -> None:
    with squashfs.open_tree(path) as tree:
        _tree(tree)
    with tempfile.TemporaryDirectory() as into:
        with contextlib.suppress(*EXPECTED):
            prune(path, output=Path(into) / "pruned")
        graft(path, additions=inputs.additions(), output=Path(into) / "grafted")


def _iso_record(path: Path) -> None:
    """Of a file: the size that the original has, and the body of the record, to which the rest is made."""
    data = path.read_bytes()
    inputs.with_iso_record(path, size=int.from_bytes(data[:8], "little"), body=data[8:])
    with path.open("rb") as file:
        if record := read_record(file):
            record.restore(file, path.with_name("restored"))
            path.with_name("restored").unlink()


def _program(path: Path) -> None:
    data = path.read_bytes()
    kernel.release(data)
    program = examined("EFI/BOOT/BOOTX64.EFI", data)
    names = [name(one) for one in program.trusts]
    signers = [one.signer for one in program.signatures]
    components = [str(one) for one in program.sbat]
    if not all(text.isprintable() for text in (*names, *signers, *components)):
        raise AssertionError("a name is not printable")
    for one in program.trusts:
        issued(one, by=one)


def _grub(path: Path) -> None:
    _boot_files(path, "boot/grub2/grub.cfg")


def _bls(path: Path) -> None:
    _boot_files(path, "boot/loader/entries/one.conf")


def _boot_files(path: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        inputs.boot_files(Path(place))
        shutil.copyfile(path, Path(place) / name)
        find_network_config(folder(Path(place)), boot_url="http://10.0.0.1/liveos.iso")


def _manifest(path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        shutil.copyfile(path, Path(place) / "manifest.json")
        Layout.read(Path(place))


def _fetch_yaml(path: Path) -> None:
    read_config(path, lock=read_lock(path))


def _file_contexts(path: Path) -> None:
    text = path.read_bytes().decode(errors="surrogateescape")
    policy = FileContexts(specifications=parse(text, name="file_contexts"))
    for one in (
        "/usr/lib/pxe-fetch/_internal/libz.so.1",
        "/usr/bin/x",
        f"/usr/libexec/{'x' * 30}",
    ):
        policy.label(one, stat.S_IFREG)


def _show(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        quiet = console(json_lines=False, quiet=True)
        with liveiso.opened(path, boot_url="", step=quiet.step) as image:
            report = report_on(image)
            quiet.result(document(report), "\n".join(lines(report)))


_LOG_WORDS = (
    *(b"//[", b"http://[x/", b"//a[b]/initrd", b"%", b"%00", b"?", b" not found", b"9" * 5000, b"bytes 0-0/0", b'"'),
    *(b"/versions/20261130T074501Z-1a2b3c4d", b".iso", b"\xff", "\N{ARABIC-INDIC DIGIT ONE}".encode(), b"\n"),
)
_TAR_WORDS = tuple(
    tarfile.TarInfo(name).tobuf(format=kind) for name in ("a" * 300, "b/" * 300) for kind in (1, 2)
)  # of GNU and pax
_GRUB_WORDS = (
    *(b"${", b"}", b'"', b"'", b"\\", b"\n", b" ; ", b"{ ", b"\nmenuentry x {\n", b"\nsubmenu x {\n"),
    *(b"\nsource /boot/grub2/grub.cfg\n", b"\nif true; then\n", b"\nfi\n", b"\nwhile true; do\n", b"\ndone\n"),
    *(b"\nfunction f { f }\nf\n", b"\nset a=$a$a\n", b"\nblscfg\n", b" linux /boot/vmlinuz root=live:x\n"),
)
_JSON_WORDS = (b"[", b"{", b'"', b":", b"\\u0000", b"\\ud800", b"../", b"1e999", b"9" * 5000, b"-1", b"null", b'{"a":')
_PATTERN_WORDS = (
    *(b"(", b")", b"(?:", b"|", b"*", b"+", b"?", b"{0,99999}", b"{9}", b"[", b"]", b"[^", b"[:word:]", b"^", b"$"),
    *(b"\\", b"\\d", b"(.*)*", b"(a|a)*", b"\n/usr/", b" u:r:t:s0\n", b"-"),
)
_KEY_WORDS = (
    *(b"untrusted comment: ", b"trusted comment: ", b"\n", b"\r", b"RW", b"=", b"A" * 56, b"-----BEGIN PRIVATE KEY"),
    b"minisign encrypted secret key",
)
_YAML_WORDS = (
    *(b"[", b"{", b"- ", b"&a ", b"*a", b"? ", b": ", b"|", b"!!python/object:x ", b"<<: ", b"\x00", b"\xff", b"\t"),
    *(b"\n  ", b"9" * 5000, b"0x", b"1_0", b"~", b"2001-01-01", b"\n---\n", b"\n...\n", b"%YAML 9.9\n", b"!!binary x"),
)

TARGETS: dict[str, Target] = {
    "iso": Target(sound=inputs.isos, read=_iso),
    "rock-ridge": Target(sound=inputs.rock_ridge, read=_iso),
    "el-torito": Target(sound=inputs.el_torito, read=_iso),
    "udf": Target(sound=inputs.udfs, read=_udf),
    "fat": Target(sound=inputs.fats, read=_fat),
    "tar": Target(sound=inputs.tars, read=_tar, words=_TAR_WORDS),
    "cpio": Target(sound=inputs.initrds, read=_cpio, words=(b"070701", b"FFFFFFFF", b"TRAILER!!!")),
    "squashfs-inodes": Target(sound=inputs.squashfs_inodes, read=_squashfs),
    "squashfs-directories": Target(sound=inputs.squashfs_directories, read=_squashfs),
    "squashfs-xattrs": Target(sound=inputs.squashfs_xattrs, read=_squashfs),
    "graft-record": Target(sound=inputs.grafted, read=_graft_record),
    "iso-record": Target(sound=inputs.iso_records, read=_iso_record),
    "kernel": Target(sound=inputs.kernels, read=_program),
    "pe": Target(sound=inputs.programs, read=_program),
    "grub-script": Target(sound=inputs.grub_scripts, read=_grub, words=_GRUB_WORDS),
    "bls": Target(sound=inputs.bls_entries, read=_bls, words=(b"linux ", b"options ", b"title ", b"\n", b"$x", b"../")),
    "manifest": Target(sound=inputs.manifests, read=_manifest, words=_JSON_WORDS),
    "fetch-yaml": Target(sound=inputs.fetch_yamls, read=_fetch_yaml, words=_YAML_WORDS),
    "stub": Target(sound=trust.programs, read=trust.compose),
    "key": Target(sound=trust.key_files, read=trust.read_key, words=_KEY_WORDS),
    "lock": Target(sound=trust.locks, read=trust.lock, words=_YAML_WORDS),
    "file-contexts": Target(sound=inputs.file_contexts, read=_file_contexts, words=_PATTERN_WORDS),
    "dnsmasq-log": Target(sound=server_logs.of_dnsmasq, read=server_logs.read_dnsmasq, words=_LOG_WORDS),
    "nginx-log": Target(sound=server_logs.of_nginx, read=server_logs.read_nginx, words=_LOG_WORDS),
    "show": Target(sound=inputs.images, read=_show),
}


@cache
def sound(name: str) -> tuple[Input, ...]:
    """The sound inputs of a target, made once."""
    return tuple(TARGETS[name].sound())


def kept(name: str) -> Iterator[bytes]:
    """The seeds of a target in the tree: inputs that went wrong once, compressed."""
    for path in sorted((Path(__file__).parent / "seeds" / name).glob("*.gz")):
        yield gzip.decompress(path.read_bytes())
