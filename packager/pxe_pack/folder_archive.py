"""Archives a folder as tar (POSIX.1-2001 pax) with zstd. The same content and modes give the same bytes.

The reasons are in docs/decisions/0022.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.tar import file_mode, folder_mode
from pxe_pack.hashing import BLOCK, Advance
from pxe_pack.source_folder import FolderScan, Member, printable, scan_folder, walk
from pxe_pack.tools import WorkError

if sys.version_info >= (3, 14):
    from compression.zstd import CompressionParameter, ZstdCompressor
else:
    from backports.zstd import CompressionParameter, ZstdCompressor

SUFFIX = ".tar.zst"
_MTIME = 315532800  # 1980-01-01, the earliest date in zip files
_LEVEL = 3
_MOST_THREADS = 4  # each needs about 10 MiB
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # a file was removed or replaced


class _ChangedError(Exception):
    """A file changed while the folder was packed."""


def archive(folder: Path, *, planned: FolderScan, advance: Advance) -> Iterator[bytes]:
    """Yield the archive of `folder` in blocks. Calls `advance` with the number of bytes read from its files.

    Raises WorkError when the folder differs from `planned` or changes while it is read, OSError when it cannot be read.
    """
    # One or more worker threads give the same bytes; zero workers give different ones: zstd(1), --single-thread.
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    options: dict[int, int] = {CompressionParameter.compression_level: _LEVEL, CompressionParameter.nb_workers: threads}
    compressor = ZstdCompressor(options=options)
    try:
        for block in _blocks(_tar(folder, advance=advance)):
            if compressed := compressor.compress(block):
                yield compressed
        now, _ = scan_folder(folder)
    except _ChangedError as error:
        raise _changed(folder, str(error)) from None
    except OSError as error:
        if error.errno not in _GONE:
            raise
        raise _changed(folder, "") from None
    if now != planned:
        raise _changed(folder, now.newest)
    yield compressor.flush()


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of a block or more: many small ones take their time."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _tar(folder: Path, *, advance: Advance) -> Iterator[bytes]:
    for member in walk(folder):
        if not isinstance(member, Member):
            raise _ChangedError(member.path)
        yield _header(member)
        if member.is_file:
            yield from _content(folder, member, advance=advance)
            yield bytes(-member.status.st_size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.path)
    info.mtime = _MTIME
    mode = stat.S_IMODE(member.status.st_mode)
    if member.is_file:
        info.size, info.mode = member.status.st_size, file_mode(mode)
    elif member.is_folder:
        info.type, info.mode = tarfile.DIRTYPE, folder_mode(mode)
    else:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, member.target, 0o777
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _content(folder: Path, member: Member, *, advance: Advance) -> Iterator[bytes]:
    """Yield the content of a file. Raises _ChangedError if it differs from `member` or changes while it is read."""
    descriptor = os.open(folder / member.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _check(descriptor, member)
        left = member.status.st_size
        while left:
            piece = os.read(descriptor, min(left, BLOCK))
            if not piece:
                raise _ChangedError(member.path)
            left -= len(piece)
            yield piece
            advance(len(piece))
        _check(descriptor, member)
    finally:
        os.close(descriptor)


def _check(descriptor: int, member: Member) -> None:
    if _facts(os.fstat(descriptor)) != _facts(member.status):
        raise _ChangedError(member.path)


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _changed(folder: Path, path: str) -> WorkError:
    message = f"{printable(folder)} changed while it was packed"
    if path not in {"", "."}:
        message += f" (last change: {printable(Path(path))})"
    hint = "make sure nothing writes to the folder, or pack a copy"
    return WorkError(Problem(reference="source-changed", message=message, hint=hint))
