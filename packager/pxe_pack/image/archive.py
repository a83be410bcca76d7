"""Unpack a pxe-tar into a temporary folder: folders, files and links, none of which may lead out of it.

Image Customizer writes it with `--output-image-format pxe-tar`: a pxe-dir as .tar.gz. Any compression tarfile reads is
accepted, and Zstandard through zstd(1).
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.tar import TarReader
from pxe_pack.image import decompress
from pxe_pack.image.decompress import Expansion, PieceStream
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.tools import InputError

_BLOCK = 1 << 20
_COMPRESSIONS = ("gzip", "xz", "bzip2", "zstd")
_USTAR_AT, _USTAR = 257, b"ustar"  # POSIX.1 and GNU alike
_MARGIN = 1 << 20  # bytes to keep free for directories and other writers


def is_archive(path: Path) -> bool:
    """Whether the file is a tar archive, or compressed like one, judged by its magic numbers."""
    with path.open("rb") as file:
        head = file.read(_USTAR_AT + len(_USTAR))
    return decompress.compression(head) in _COMPRESSIONS or head[_USTAR_AT:] == _USTAR


def unpack(archive: Path, into: Path) -> Path:
    """Unpack `archive` into the empty folder `into`, and return the folder with its content.

    That is `into`, or the only folder in it. Raises InputError if the archive is damaged or contains what a pxe-tar
    never does: names that escape it, devices, duplicate names; LimitError if it is too large to be one.
    """
    try:
        with members(archive) as tar:
            expansion = Expansion(read=archive.stat().st_size)
            _Unpacking(archive=archive, into=into, expansion=expansion).unpack_all(tar)
    except (tarfile.TarError, *decompress.DAMAGED) as error:
        raise _refused(
            "image-damaged", f"{archive} is a damaged archive: {str(error) or 'unexpected end of file'}"
        ) from error
    names = list(into.iterdir())
    return names[0] if len(names) == 1 and names[0].is_dir() and not names[0].is_symlink() else into


@contextmanager
def members(archive: Path) -> Iterator[TarReader]:
    """The archive's members, decompressed. Reading them raises tarfile.TarError or one of decompress.DAMAGED."""
    with archive.open("rb") as file:
        name = decompress.compression(file.read(decompress.LONGEST_MAGIC))
        file.seek(0)
        if name not in _COMPRESSIONS:
            yield TarReader(file)
            return
        with closing(decompress.concatenated(name, iter(lambda: file.read(_BLOCK), b""))) as pieces:
            yield TarReader(io.BufferedReader(PieceStream(pieces), _BLOCK))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unpacking:
    """The state of unpacking one archive."""

    archive: Path
    into: Path
    expansion: Expansion
    files: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    def unpack_all(self, tar: TarReader) -> None:
        count, names = Usage(Limit.ARCHIVE_NAMES), Usage(Limit.NAMES_SIZE)
        for member in tar:
            Limit.PATH.check(max(len(member.name), len(member.linkname)))
            Limit.DEPTH.check(member.name.count("/"))
            count.add()
            names.add(len(member.name) + len(member.linkname))
            path = self._inside(member.name)
            try:
                self._place(tar, member, path)
            except (FileExistsError, NotADirectoryError) as error:
                raise self._unsafe(f"contains {path} twice, with different types") from error
        # links come last, so that nothing is written through one
        for path, where in self.links.items():
            try:
                (self.into / path).symlink_to(where)
            except OSError as error:
                raise self._unsafe(f"contains {path} twice, with different types") from error

    def _place(self, tar: TarReader, member: tarfile.TarInfo, path: str) -> None:
        target = self.into / path
        if path in self.files or path in self.links:
            raise self._unsafe(f"contains {path} twice")
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.issym():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.links[path] = member.linkname
        elif member.islnk():
            first = self._inside(member.linkname)
            if first not in self.files:
                raise self._unsafe(f"has the hard link {path} to {first}, which is not an earlier file")
            size = (self.into / first).stat().st_size
            self.expansion.add(written=size)
            with (self.into / first).open("rb") as content:
                _write(target, iter(lambda: content.read(_BLOCK), b""), size=size)
            self.files.add(path)
        elif member.isreg():
            self.expansion.add(written=member.size)  # also of holes, which the archive does not hold
            _write(target, tar.content(member), size=member.size)
            self.files.add(path)
        else:
            raise self._unsafe(f"contains a device or a pipe, {path}")

    def _inside(self, name: str) -> str:
        """The member's path below the folder. Raises InputError if it escapes the folder."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self._unsafe(f"contains a name that escapes it, {name!r}")
        return "/".join(parts)

    def _unsafe(self, what: str) -> InputError:
        return _refused("image-tar-unsafe", f"{self.archive} {what}; a pxe-tar never does")


def _write(target: Path, content: Iterable[bytes], *, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < size + _MARGIN:
        message = f"unpacking the image needs {size:,} more bytes in {target.parent}, but only {free:,} are free"
        raise _refused("disk-full", message, hint="use --output or TMPDIR to choose a folder on another filesystem")
    with target.open("xb") as file:
        file.writelines(content)


def _refused(
    reference: str, message: str, *, hint: str = "use the archive unchanged, as Image Customizer wrote it"
) -> InputError:
    return InputError(Problem(reference=reference, message=message, hint=hint))
