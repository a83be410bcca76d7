"""Squashfs images to graft onto, built by mksquashfs and tar2sqfs from tars, so no privilege is needed."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from liveos.specials import Inode
from pxe_pack.tools import find

TIME = 1_700_000_000  # of everything


@dataclass(kw_only=True)
class Member:
    """One member of a tar; tests describe an image's content with these."""

    path: str
    type: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = TIME
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)


def directory(
    path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0, xattrs: dict[str, bytes] | None = None
) -> Member:
    return Member(path=path, type=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid, xattrs=xattrs or {})


def varied() -> list[Member]:
    """A bit of everything a root filesystem has, and some things it should not have."""
    random = Random(4)
    label = {"security.selinux": b"system_u:object_r:bin_t:s0\0"}
    long_value = {"user.long": bytes(range(256)) * 4}
    noise = random.randbytes(300_000)
    text = b"".join(b"line %d of a text that compresses\n" % n for n in range(9000))
    members = [
        directory("usr"),
        directory("usr/bin"),
        directory("usr/lib", xattrs=label),
        directory("usr/lib/systemd"),
        directory("usr/lib/systemd/system"),
        directory("etc", 0o750, uid=7, gid=70_000),
        directory("empty"),
        directory("tmp", 0o1777),
        Member(path="lib", type=tarfile.SYMTYPE, link="usr/lib", mode=0o777),
        Member(path="bin", type=tarfile.SYMTYPE, link="/usr/bin", mode=0o777, uid=3),
        Member(path="etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n"),
        Member(path="etc/zero", data=b""),
        Member(path="etc/shadow", data=b"root:!:1::::::\n", mode=0, gid=42, xattrs=label | long_value),
        Member(path="usr/bin/su", data=noise[:70_000], mode=0o4755, xattrs=label),
        Member(path="usr/bin/doas", type=tarfile.LNKTYPE, link="usr/bin/su"),
        Member(path="usr/lib/su.link", type=tarfile.LNKTYPE, link="usr/bin/su"),
        Member(path="usr/lib/noise", data=noise),
        Member(path="usr/lib/same", data=noise),
        Member(path="usr/lib/text", data=text),
        Member(path="usr/lib/block", data=text[: 1 << 17]),
        Member(path="usr/lib/over", data=text[: (1 << 17) + 1]),
        Member(path="usr/lib/hole", data=text[:5000] + bytes(3 << 20) + noise[:9999] + bytes(1 << 20)),
        Member(path="usr/lib/hollow", data=bytes(2 << 20)),
        Member(path="null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Member(path="disk", type=tarfile.BLKTYPE, device=(259, 70_000), mode=0o660, gid=6),
        Member(path="pipe", type=tarfile.FIFOTYPE, mode=0o600, xattrs=long_value),
        Member(path="naïve ☃ \udcff", data=b"not UTF-8", mtime=1),
        Member(path="n" * 255, data=b"long name"),
    ]
    for number in range(300):
        xattrs = long_value if number % 3 else {"user.n": b"%d" % number, "trusted.t": b"x" * number}
        members.append(Member(path=f"etc/conf{number:03}", data=b"%d\n" % number, mtime=number, xattrs=xattrs))
    return members


def tar(members: Iterable[Member]) -> bytes:
    """A pax tar of `members`."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for member in members:
            info = tarfile.TarInfo(member.path)
            info.type, info.mode, info.linkname = member.type, member.mode, member.link
            info.uid, info.gid, info.mtime = member.uid, member.gid, member.mtime
            info.devmajor, info.devminor = member.device
            info.size = len(member.data)
            info.pax_headers = {
                f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
                for name, value in member.xattrs.items()
            }
            archive.addfile(info, io.BytesIO(member.data))
    return made.getvalue()


def _run(program: str, *arguments: str, stdin: bytes) -> None:
    path = find(program)
    assert path, f"{program} is needed"
    done = subprocess.run([path, *arguments], input=stdin, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def mksquashfs(output: Path, members: Iterable[Member], *options: str) -> Path:
    """An image made by mksquashfs, exportable unless `options` say otherwise."""
    exports = () if "-no-exports" in options else ("-exports",)
    _run(
        "mksquashfs", "-", str(output), "-tar", "-noappend", "-quiet", "-no-progress", "-mkfs-time", str(TIME),
        *exports, *options, stdin=tar(members),
    )  # fmt: skip
    return output


def members(inodes: Iterable[Inode]) -> Iterator[bytes]:
    """A tar of `inodes`, one piece each, without the end blocks."""
    for inode in inodes:
        piece = io.BytesIO()
        inode.write(tarfile.open(fileobj=piece, mode="w", format=tarfile.PAX_FORMAT))  # noqa: SIM115  closing ends it
        yield piece.getvalue()


def empty_files(folders: Iterable[str], count: int) -> Iterator[bytes]:
    """A tar of `folders`, each with `count` empty files f0…; faster than creating them on disk or with tarfile."""
    for folder in folders:
        yield _header(f"{folder}/", b"5", 0o755)
        yield b"".join(_header(f"{folder}/f{number:05}", b"0", 0o644) for number in range(count))
    yield bytes(1024)


def _header(path: str, kind: bytes, mode: int) -> bytes:
    """A ustar header (pax(1)); its checksum counts the field of the checksum as spaces."""
    fields = b"%-100b%07o\0%07o\0%07o\0%011o\0%011o\0" % (path.encode(), mode, 0, 0, 0, TIME)
    before, after = fields.replace(b" ", b"\0"), b"%b%b%b00" % (kind, bytes(100), b"ustar\0")
    return b"%b%06o\0 %b" % (before, sum(before) + sum(after) + 8 * 32, after) + bytes(
        512 - 8 - len(before) - len(after)
    )


def mksquashfs_stream(output: Path, stream: Iterable[bytes], *options: str) -> Path:
    """An image built by mksquashfs from a tar in pieces. A large directory in it takes mksquashfs a long time."""
    command = ["-", str(output), "-tar", "-noappend", "-quiet", "-no-progress", "-exports", *options]
    program = find("mksquashfs")
    assert program, "mksquashfs is needed"
    with subprocess.Popen([str(program), *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writer:
        assert writer.stdin
        writer.stdin.writelines(stream)
        writer.stdin.close()
    assert writer.returncode == 0
    return output


def mksquashfs_tree(output: Path, tree: Path, *options: str) -> Path:
    """An image made by mksquashfs of a directory."""
    _run("mksquashfs", str(tree), str(output), "-noappend", "-quiet", "-no-progress", *options, stdin=b"")
    return output


def tar2sqfs(output: Path, members: Iterable[Member], *options: str) -> Path:
    """An image made by squashfs-tools-ng."""
    _run("tar2sqfs", "--quiet", "--force", "--exportable", *options, str(output), stdin=tar(members))
    return output


def _made(maker: Callable[..., Path], *options: str) -> Callable[[Path], Path]:
    return lambda output: maker(output, varied(), *options)


# Name -> how the image is made. Every compressor, and every option that changes what the tables look like.
KINDS: dict[str, Callable[[Path], Path]] = {
    "gzip": _made(mksquashfs),
    "gzip-options": _made(mksquashfs, "-Xcompression-level", "3", "-Xwindow-size", "10"),
    "xz": _made(mksquashfs, "-comp", "xz"),
    "xz-options": _made(mksquashfs, "-comp", "xz", "-Xbcj", "x86,arm", "-Xdict-size", "50%", "-b", "1M"),
    "zstd": _made(mksquashfs, "-comp", "zstd", "-Xcompression-level", "3"),
    "lz4": _made(mksquashfs, "-comp", "lz4"),
    "lz4-hc": _made(mksquashfs, "-comp", "lz4", "-Xhc"),
    "lzo": _made(mksquashfs, "-comp", "lzo"),
    "lzma": _made(mksquashfs, "-comp", "lzma"),
    "plain": _made(mksquashfs, "-noI", "-noD", "-noF", "-noX", "-noId"),
    "bare": _made(
        mksquashfs,
        "-no-fragments",
        "-noI",
        "-noD",
        "-noF",
        "-noX",
        "-no-exports",
        "-no-xattrs",
        "-b",
        "4K",
        "-no-sparse",
    ),
    "4K": _made(mksquashfs, "-b", "4K", "-always-use-fragments"),
    "1M": _made(mksquashfs, "-b", "1M", "-comp", "zstd", "-Xcompression-level", "1", "-no-duplicates"),
    "no-exports": _made(mksquashfs, "-no-exports", "-no-fragments"),
    "no-xattrs": _made(mksquashfs, "-no-xattrs", "-no-hardlinks"),
    "nopad": _made(mksquashfs, "-nopad"),
    "tar2sqfs-gzip": _made(tar2sqfs, "-c", "gzip"),
    "tar2sqfs-xz": _made(tar2sqfs, "-c", "xz", "-b", "65536"),
    "tar2sqfs-zstd": _made(tar2sqfs, "-c", "zstd", "-X", "level=1"),
}
