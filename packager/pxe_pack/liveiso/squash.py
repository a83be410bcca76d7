"""Write the squashfs of a root filesystem with tar2sqfs; owners, devices, modes and xattrs travel in tar headers.

A squashfs is copied unchanged, and a tar's headers are used as they are. In a folder, files of the same owner as the
top folder become root's, so that a tree unpacked by a user gives the same result as one unpacked by root; all other
owners stay. A folder's SELinux labels belong to this machine and are dropped; file capabilities and user.* are kept.
"""

from __future__ import annotations

import bz2
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from pxe_pack import tools
from pxe_pack.image.rootfs_source import RootfsSource, every_name

WRITER = "tar2sqfs"

_BLOCK = 1 << 20
_XATTRS = ("security.capability", "user.")
_ZSTD = "CONFIG_SQUASHFS_ZSTD=y"  # fs/squashfs/Kconfig


def compressor(source: RootfsSource) -> str:
    """Zstd if every kernel config enables it, else gzip, which every kernel supports."""
    return "zstd" if source.configs and all(_ZSTD in text for text in source.configs) else "gzip"


def write_squashfs(source: RootfsSource, target: Path, *, mtime: int) -> None:
    """Write the squashfs of `source` to `target`. Raises WorkError if tar2sqfs fails, and OSError."""
    if source.form == "squashfs":
        shutil.copyfile(source.path, target)
        return
    if source.form == "tar" and not _is_bzip2(source.path):
        with source.path.open("rb") as archive, _writer(source, target, stdin=archive, mtime=mtime) as writer:
            _, errors = writer.communicate()
        tools.check(WRITER, writer.returncode, errors)
        return
    with _writer(source, target, stdin=subprocess.PIPE, mtime=mtime) as writer:
        # after a broken pipe, the writer's stderr has the reason
        with suppress(BrokenPipeError), cast("IO[bytes]", writer.stdin) as stream:
            if source.form == "tar":
                with bz2.open(source.path) as unpacked:
                    shutil.copyfileobj(unpacked, stream, _BLOCK)
            else:
                _write_folder(source.path, stream)
        errors = cast("IO[bytes]", writer.stderr).read()
        writer.wait()
    tools.check(WRITER, writer.returncode, errors)


def _is_bzip2(path: Path) -> bool:
    """Whether it is bzip2, which Debian's tar2sqfs cannot unpack itself, unlike gzip, xz and zstd."""
    with path.open("rb") as file:
        return file.read(3) == b"BZh"


@contextmanager
def _writer(
    source: RootfsSource, target: Path, *, stdin: IO[bytes] | int, mtime: int
) -> Iterator[subprocess.Popen[bytes]]:
    options = ["-q", "-s", "-c", compressor(source), target]
    process = tools.start(
        WRITER, *map(str, options), stdin=stdin, stdout=subprocess.DEVNULL, env={"SOURCE_DATE_EPOCH": str(mtime)}
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _write_folder(path: Path, stream: IO[bytes]) -> None:
    top = path.stat()
    first: dict[tuple[int, int], str] = {}  # inode with several names -> the first name
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as out:
        for name in ("", *every_name(path)):
            file = path / name
            status = file.lstat()
            if stat.S_ISSOCK(status.st_mode):
                continue
            member = _member(name or ".", file, status, top=top)
            key = (status.st_dev, status.st_ino)
            if member.isreg() and status.st_nlink > 1 and first.setdefault(key, member.name) != member.name:
                member.type, member.linkname, member.size = tarfile.LNKTYPE, first[key], 0
            if member.isreg():
                with file.open("rb") as content:
                    out.addfile(member, content)
            else:
                out.addfile(member)


def _member(name: str, file: Path, status: os.stat_result, *, top: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    kinds = {
        stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
    }  # fmt: skip
    member.type = kinds.get(stat.S_IFMT(status.st_mode), tarfile.REGTYPE)
    member.mode = stat.S_IMODE(status.st_mode)
    member.mtime = int(status.st_mtime)
    member.uid = 0 if status.st_uid == top.st_uid else status.st_uid
    member.gid = 0 if status.st_gid == top.st_gid else status.st_gid
    if member.issym():
        member.linkname = os.readlink(file)  # noqa: PTH115  a str, as it stands
    elif member.isreg():
        member.size = status.st_size
    elif member.isdev():
        member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    member.pax_headers = {
        f"SCHILY.xattr.{key}": os.getxattr(file, key, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for key in sorted(os.listxattr(file, follow_symlinks=False))
        if key.startswith(_XATTRS)
    }
    return member
