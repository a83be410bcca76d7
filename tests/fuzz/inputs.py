"""Sound inputs of each reader, made by the programs that usually make them, and where in them a change matters."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import stat
import struct
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from liveos import newc, shapes, tiny
from liveos.cache import Cache
from packager.squashfs.images import Member, directory, mksquashfs
from packing import bootloaders, roots
from packing.site import Site, make_iso, small_agent
from pxe_pack import cli
from pxe_pack.image.pe.program import read_program
from pxe_pack.squashfs import Addition, NewDirectory, NewFile, graft

ROOT = Path(__file__).resolve().parents[2]
SECTOR = 2048
_SHIMS = ("/usr/lib/shim/fbx64.efi.signed", "/usr/lib/shim/shimx64.efi.signed")


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input, and the stretches (start, end) in which most changes are made; all of it if there are none."""

    data: bytes
    spans: tuple[tuple[int, int], ...] = ()


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def _small_iso(*options: str) -> bytes:
    files: dict[str, str | bytes] = {f"folder{n}/file number {n}": f"{n}\n" for n in range(20)}
    files |= {"a" * 120: "long\n", "deep/" * 9 + "file": "deep\n", "EFI/BOOT/BOOTX64.EFI": b"MZ"}
    with _place() as place:
        return make_iso(place / "small.iso", files, options=options).read_bytes()


def isos() -> list[Input]:
    """With Rock Ridge, with Joliet beside it, with Joliet alone, and without either."""
    found = []
    for options in (["-no-pad"], ["-no-pad", "-J"], ["-no-pad", "-J", "--norock"], ["-no-pad", "--norock"]):
        data = _small_iso(*options)
        found.append(Input(data=data, spans=((16 * SECTOR, 20 * SECTOR), (20 * SECTOR, 40 * SECTOR))))
    return found


def udfs() -> list[Input]:
    """UDF beside ISO 9660: its descriptors and anchor, its partition."""
    with _place() as place:
        (place / "stage/LiveOS").mkdir(parents=True)
        (place / "stage/LiveOS/squashfs.img").write_bytes(bytes(5000))
        command = [
            "genisoimage",
            "-quiet",
            "-udf",
            "-R",
            "-no-pad",
            "-o",
            str(place / "made.iso"),
            str(place / "stage"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        data = (place / "made.iso").read_bytes()
    sectors = ((16, 24), (32, 48), (256, 257), (257, 270))
    return [Input(data=data, spans=tuple((first * SECTOR, last * SECTOR) for first, last in sectors))]


def rock_ridge() -> list[Input]:
    """With long names, links, and folders that were relocated."""
    with _place() as place:
        stage = place / "stage"
        (stage / "/".join(["deep"] * 12)).mkdir(parents=True)
        (stage / "link").symlink_to("../" + "long/" * 60 + "target")
        (stage / ("n" * 250)).write_text("x")
        target = place / "made.iso"
        command = ["xorriso", "-as", "mkisofs", "-no-pad", "-R", "-o", str(target), str(stage)]
        subprocess.run(command, check=True, capture_output=True)
        data = target.read_bytes()
    return [Input(data=data, spans=((18 * SECTOR, len(data)),))]


def el_torito() -> list[Input]:
    """The tiny image, cut off behind its boot image."""
    data = bytearray(shapes.cached(shapes.SHAPES["tiny"]).read_bytes())
    catalog = struct.unpack_from("<I", data, 17 * SECTOR + 0x47)[0] * SECTOR
    sector = max(struct.unpack_from("<I", data, at + 8)[0] for at in range(catalog, catalog + SECTOR, 32))
    image = sector * SECTOR
    heads = ((17 * SECTOR, 18 * SECTOR), (catalog, catalog + 256), (image, image + 64), (image, image + 64 * 1024))
    return [Input(data=bytes(data), spans=heads)]


def fats() -> list[Input]:
    """FAT12, FAT16 and FAT32."""
    found = []
    for bits, kib, options in ((12, 128, ["-s", "1"]), (16, 4300, ["-s", "1"]), (32, 33500, ["-s", "1"])):
        with _place() as place:
            image = place / "fat"
            command = ["mkfs.fat", "-C", "-F", str(bits), *options, str(image), str(kib)]
            subprocess.run(command, check=True, capture_output=True)
            subprocess.run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT", "::/a long folder name"], check=True)
            for name in ("EFI/BOOT/BOOTX64.EFI", "a long folder name/grub.cfg", "grub.cfg"):
                subprocess.run(["mcopy", "-i", image, "-", f"::/{name}"], input=bytes(3000), check=True)
            data = image.read_bytes()
        used = len(data.rstrip(b"\0"))
        found.append(Input(data=data[: used + (64 << 10)], spans=((0, 64), (512, 4096), (0, used))))
    return found


def tars() -> list[Input]:
    """Of GNU tar and pax, plain and compressed; a root filesystem and boot files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in ("boot/" + "g" * 150, "EFI/BOOT/BOOTX64.EFI", "etc/os-release"):
            member = tarfile.TarInfo(path)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 200
        tar.addfile(link)
    gnu = stream.getvalue()
    pax = roots.stream([one for one in tiny.tree() if len(one.data or b"") < 5000])[:100_000]
    packed = [gzip.compress(gnu, mtime=0), bz2.compress(gnu), lzma.compress(gnu)]
    packed.append(subprocess.run(["zstd", "-qc"], input=gnu, check=True, capture_output=True).stdout)
    return [Input(data=one) for one in (gnu, pax, *packed)]


def initrds() -> list[Input]:
    """Each compression, several parts, and a squashfs inside."""
    files = [newc.Entry(f"usr/lib/modules/6.{n}", stat.S_IFDIR | 0o755) for n in range(5)]
    files += [newc.Entry("init", stat.S_IFLNK | 0o777, b"usr/lib/systemd/systemd")]
    files += [newc.Entry("etc/os-release", stat.S_IFREG | 0o644, b"PRETTY_NAME=x\n" * 20)]
    files += [newc.Entry("usr/lib/dracut/modules.txt", stat.S_IFREG | 0o644, b"livenet\n")]
    plain = newc.archive(files)
    squashed = newc.archive([newc.Entry("squash-root.img", stat.S_IFREG | 0o644, _image(compression="gzip"))])
    zstd = subprocess.run(["zstd", "-qc"], input=plain, check=True, capture_output=True).stdout
    packed = [gzip.compress(plain, mtime=0), lzma.compress(plain, check=lzma.CHECK_CRC32), zstd]
    packed.append(lzma.compress(plain, format=lzma.FORMAT_ALONE))
    return [Input(data=one) for one in (plain, plain + packed[0], *packed, squashed, gzip.compress(squashed, mtime=0))]


def _members() -> list[Member]:
    shared = {"security.selinux": b"system_u:object_r:bin_t:s0\0", "user.long": bytes(range(256)) * 2}
    found = [directory(path) for path in ("etc", "usr", "usr/lib", "usr/lib/systemd", "boot", "many", "usr/lib64")]
    found += [Member(path=f"many/file{n:04}", data=b"%d" % n) for n in range(60)]
    found += [Member(path="etc/os-release", data=b'PRETTY_NAME="Fuzz 1"\n', xattrs=shared)]
    found += [Member(path="usr/lib/libc.so.6", data=b"\x7fELF" + bytes(14) + b"\x3e\0GLIBC_2.38\0", xattrs=shared)]
    found += [Member(path="usr/lib/systemd/libsystemd-shared-255.so", data=bytes(9000))]
    found += [Member(path="lib", type=tarfile.SYMTYPE, link="usr/lib"), Member(path="fifo", type=tarfile.FIFOTYPE)]
    found += [Member(path=f"usr/lib/x{n}", data=b"x", xattrs={f"user.n{n}": b"v" * n}) for n in range(20)]
    return found


def _image(*, compression: str) -> bytes:
    options = ("-noI", "-noD", "-noF", "-noX", "-noId") if compression == "none" else ("-comp", compression)
    with _place() as place:
        return mksquashfs(place / "image", _members(), *options).read_bytes().rstrip(b"\0") + bytes(64)


def _squashfs(first: int, last: int) -> list[Input]:
    """Images with most changes between two of the tables whose positions are in the superblock, and in it."""
    found = []
    for compression in ("none", "none", "none", "gzip", "xz", "zstd", "lz4", "lzo"):
        data = _image(compression=compression)
        places = struct.unpack_from("<8Q", data, 32)
        start, end = places[first], places[last] if last >= 0 else len(data)
        found.append(Input(data=data, spans=((0, 96), *[(min(start, len(data)), min(end, len(data)))] * 9)))
    return found


def squashfs_inodes() -> list[Input]:
    """The inode table and the superblock."""
    return _squashfs(4, 5)


def squashfs_directories() -> list[Input]:
    """The directory and fragment tables."""
    return _squashfs(5, 2)


def squashfs_xattrs() -> list[Input]:
    """The owners' table and the xattrs."""
    return _squashfs(2, -1)


def additions() -> Sequence[Addition]:
    """What is grafted."""
    folder, file = "usr/lib/pxe-fetch", "usr/lib/pxe-fetch/agent"
    label = {"security.selinux": b"system_u:object_r:bin_t:s0\0"}
    return [
        NewDirectory(path=folder, mode=0o755, mtime=1),
        NewFile(path=file, mode=0o755, mtime=1, content=b"agent" * 5000, xattrs=label),
        NewFile(path="etc/os-release", mode=0o644, mtime=1, content=b"NAME=other\n"),
    ]


def grafted() -> list[Input]:
    """Images with a graft, with most changes in its record and its tables."""
    found = []
    for compression in ("none", "gzip"):
        with _place() as place:
            (place / "before").write_bytes(_image(compression=compression))
            graft(place / "before", additions=additions(), output=place / "after")
            data = (place / "after").read_bytes()
        inode_table = struct.unpack_from("<Q", data, 64)[0]
        found.append(Input(data=data, spans=((inode_table - 152, inode_table), (inode_table, len(data)), (0, 96))))
    return found


def iso_records() -> list[Input]:
    """The size of an original, and its pieces: one that is found, zeros, and one that is kept."""
    pieces = [(b"F", 4096, 8192), (b"Z", 2048, 0), (b"K", 10, 3)]
    body = struct.pack("<Q", len(pieces)) + b"".join(struct.pack("<cQQ", *one) for one in pieces) + b"kept bytes" * 3
    return [Input(data=struct.pack("<Q", 4096 + 2048 + 10) + body)]


def with_iso_record(path: Path, *, size: int, body: bytes) -> None:
    """Write a file with a record whose digest is right, as pxe-pack/inject/iso_record.py has it."""
    head, packed = bytes(64 << 10), zlib.compress(body)
    fields = struct.pack("<16sQQQ", b"pxe-pack iso v1\n", size, len(head), len(packed))
    path.write_bytes(head + packed + fields + hashlib.sha256(head + fields + packed).digest())


def kernels() -> list[Input]:
    """A bzImage, and arm64's compressed EFI kernel."""
    bzimage = tiny.boot_files(Cache()).kernel.read_bytes()
    banner = b"\0" * 5000 + b"Linux version 6.6.1-test (x@y) #1 SMP\0"
    packed = gzip.compress(banner, mtime=0)
    zboot = struct.pack("<4s4sII8x32s", b"MZ\0\0", b"zimg", 64, len(packed), b"gzip").ljust(64, b"\0") + packed
    return [Input(data=bzimage, spans=((0, 64), (0x1F0, 0x320))), Input(data=packed), Input(data=zboot)]


def programs() -> list[Input]:
    """Shims with signatures, and a GRUB with its modules."""
    found = []
    for path in _SHIMS:
        data = Path(path).read_bytes()
        (coff,) = struct.unpack_from("<I", data, 0x3C)
        table, size = struct.unpack_from("<II", data, coff + 24 + 112 + 32)
        sections = coff + 24 + struct.unpack_from("<H", data, coff + 20)[0]
        spans = ((0, 64), (coff, sections), (sections, sections + 480), (table, table + size), (table, table + size))
        found.append(Input(data=data, spans=spans))
    with _place() as place:
        data = bootloaders.grub(place / "grubx64.efi").read_bytes()
    area = read_program(data).sections["mods"].offset
    found.append(Input(data=data, spans=((0, 1024), (area, area + 64), (area, len(data)))))
    return found


def boot_files(place: Path) -> None:
    """A folder of boot files around one configuration."""
    (place / "boot/grub2").mkdir(parents=True)
    (place / "boot/loader/entries").mkdir(parents=True)
    for name in ("boot/vmlinuz", "boot/initrd.img", "boot/grub2/grubenv"):
        (place / name).write_text("x")
    (place / "boot/grub2/grub.cfg").write_text(
        "load_env\ninsmod blscfg\nblscfg\nmenuentry y {\n linux /boot/vmlinuz root=live:LABEL=X rd.live.image\n"
        " initrd /boot/initrd.img\n}\n"
    )


def grub_scripts() -> list[Input]:
    """Those of real images."""
    corpus = sorted((ROOT / "tests/packager/grubcfg").glob("*/medium/**/*.cfg"))
    return [Input(data=path.read_bytes()) for path in corpus]


def bls_entries() -> list[Input]:
    """An entry as Fedora writes it."""
    text = (
        "title Fedora Linux (6.11.4) 41\nversion 6.11.4-301.fc41.x86_64\nlinux /boot/vmlinuz\ninitrd /boot/initrd.img\n"
        "options root=live:CDLABEL=X rd.live.image quiet $tuned_params\ngrub_users $grub_users\ngrub_class fedora\n"
    )
    return [Input(data=text.encode())]


def manifests() -> list[Input]:
    """That of a layout that was packed."""
    with _place() as place:
        site = Site(folder=place, image=shapes.cached(shapes.SHAPES["tiny"]), agent=small_agent(place / "agent"))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = cli.main(site.command("--quiet"))
        if code:
            raise RuntimeError("packing failed")
        return [Input(data=(site.output / "manifest.json").read_bytes())]


def fetch_yamls() -> list[Input]:
    """Those of the examples."""
    return [Input(data=path.read_bytes()) for path in sorted((ROOT / "examples").glob("*/f*.yaml"))]


def images() -> list[Input]:
    """The tiny ISO: its descriptors, directories, boot image, and the superblock and tables of its squashfs."""
    data = shapes.cached(shapes.SHAPES["tiny"]).read_bytes()
    root = data.index(b"hsqs")
    tables = struct.unpack_from("<8Q", data, root + 32)
    start, end = root + tables[4], root + tables[1]
    catalog = struct.unpack_from("<I", data, 17 * SECTOR + 0x47)[0] * SECTOR
    spans = ((16 * SECTOR, 19 * SECTOR), (19 * SECTOR, 60 * SECTOR), (catalog, catalog + 128))
    return [Input(data=data, spans=(*spans, (root, root + 96), (start, end), (start, end)))]


def file_contexts() -> list[Input]:
    """Of an SELinux policy: what its regular expressions have."""
    lines = (
        r"/usr/(.*/)?bin(/.*)? system_u:object_r:bin_t:s0",
        r"/usr/lib/.*\.so(\.[^/]*)* -- system_u:object_r:shlib_t:s0",
        r"/usr/[[:alpha:]-]{2,8}/(a|ab)+?[^\W_]* u:r:t:s0",
        r"/usr/lib(exec)?/((x*)*y)* <<none>>",
    )
    return [Input(data="\n".join(lines).encode())]
