"""A pxe-tar unpacked into a folder of ours: names, files, links inside it, and nothing that leads out of it.

Image Customizer writes it with `--output-image-format pxe-tar`: a pxe-dir as .tar.gz. Whatever tarfile reads will do,
and Zstandard by zstd(1).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.tar import TarReader
from pxe_pack.image.initrd.cpio import PieceStream
from pxe_pack.image.media import MANY
from pxe_pack.image.unzstd import unzstd
from pxe_pack.tools import InputError

_BLOCK = 1 << 20
_GZIP, _XZ, _BZIP2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
_LONGEST_MAGIC = 6
_USTAR_AT, _USTAR = 257, b"ustar"  # POSIX.1 and GNU alike
_MARGIN = 1 << 20  # bytes that stay free: directories, and whatever else is written meanwhile


def is_archive(path: Path) -> bool:
    """Whether the file is a tar archive, or compressed as one may be, by its magic numbers."""
    with path.open("rb") as file:
        head = file.read(_USTAR_AT + len(_USTAR))
    return head.startswith((_GZIP, _XZ, _BZIP2, _ZSTD)) or head[_USTAR_AT:] == _USTAR


def unpack(archive: Path, into: Path) -> Path:
    """Unpack `archive` into the empty folder `into`; gives the folder that has what was packed.

    That is `into`, or the one folder in it, where everything lies in one. Raises InputError when the archive is
    damaged, or has what no pxe-tar has: names that lead out of it, devices, a name twice.
    """
    try:
        with members(archive) as tar:
            _Unpacking(archive=archive, into=into).take(tar)
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise _refused(
            "image-damaged", f"{archive} is a damaged archive: {str(error) or 'it ends too soon'}"
        ) from error
    names = list(into.iterdir())
    return names[0] if len(names) == 1 and names[0].is_dir() and not names[0].is_symlink() else into


@contextmanager
def members(archive: Path) -> Iterator[TarReader]:
    """The archive's members, whatever it is compressed with. Raises as TarReader and the decompressors do."""
    with archive.open("rb") as file, _uncompressed(file) as stream:
        try:
            yield TarReader(stream)
        except OSError as error:
            if error.errno is not None:
                raise
            raise tarfile.ReadError(str(error)) from error  # damaged data, as gzip and bz2 say it


@contextmanager
def _uncompressed(file: BinaryIO) -> Iterator[BinaryIO | io.BufferedIOBase]:
    head = file.read(_LONGEST_MAGIC)
    file.seek(0)
    if head.startswith(_ZSTD):
        pieces = unzstd(iter(lambda: file.read(_BLOCK), b""))
        try:
            yield io.BufferedReader(PieceStream(pieces), _BLOCK)
        finally:
            pieces.close()
    elif head.startswith(_GZIP):
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream
    elif head.startswith(_XZ):
        with lzma.LZMAFile(file) as stream:
            yield stream
    elif head.startswith(_BZIP2):
        with bz2.BZ2File(file) as stream:
            yield stream
    else:
        yield file


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unpacking:
    """What is being unpacked, and how far that has come."""

    archive: Path
    into: Path
    files: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    def take(self, tar: TarReader) -> None:
        for count, member in enumerate(tar):
            if count > MANY:
                raise _refused("image-too-many-files", f"{self.archive} has more than {MANY:,} files")
            path = self._inside(member.name)
            try:
                self._place(tar, member, path)
            except (FileExistsError, NotADirectoryError) as error:
                raise self._unsafe(f"has {path} twice, as different things") from error
        # last, so that nothing was written through one of them
        for path, where in self.links.items():
            try:
                (self.into / path).symlink_to(where)
            except OSError as error:
                raise self._unsafe(f"has {path} twice, as different things") from error

    def _place(self, tar: TarReader, member: tarfile.TarInfo, path: str) -> None:
        target = self.into / path
        if path in self.files or path in self.links:
            raise self._unsafe(f"has {path} twice")
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.links[path] = member.linkname
        elif member.islnk():
            first = self._inside(member.linkname)
            if first not in self.files:
                raise self._unsafe(f"has {path} as a link to {first}, which is no file before it")
            _write(target, (self.into / first).open("rb"), size=(self.into / first).stat().st_size)
            self.files.add(path)
        elif member.isreg():
            _write(target, tar.content(member), size=member.size)
            self.files.add(path)
        else:
            raise self._unsafe(f"has a device or a pipe, {path}")

    def _inside(self, name: str) -> str:
        """The member's name below the folder. Raises InputError when it leads out of it."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self._unsafe(f"has a name that leads out of it, {name!r}")
        return "/".join(parts)

    def _unsafe(self, what: str) -> InputError:
        return _refused("image-tar-unsafe", f"{self.archive} {what}, which no pxe-tar has")


def _write(target: Path, source: IO[bytes], *, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < size + _MARGIN:
        message = f"unpacking the image takes {size:,} bytes more in {target.parent}, and {free:,} are free"
        raise _refused("disk-full", message, hint="choose a folder on another file system by --output, or set TMPDIR")
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, _BLOCK)
    if target.stat().st_size != size:
        raise EOFError


def _refused(
    reference: str, message: str, *, hint: str = "give the archive as Image Customizer wrote it"
) -> InputError:
    return InputError(Problem(reference=reference, message=message, hint=hint))
