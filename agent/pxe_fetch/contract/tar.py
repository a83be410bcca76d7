"""Tar archives, for both halves: how they are read, and what a node unpacks of them.

Members come in order and in bounded memory, and a damaged one is an error, never the end of the archive.

Python's tarfile does the parsing, by its documented calls alone, so that every Python from 3.11.2 on behaves the same.
What it does not check is checked here: it reads as many bytes as a header claims, keeps every member, and takes a
damaged header behind the first for the end of the archive.

Source: pax(1), "ustar Interchange Format" (an archive ends with blocks of zeros, or where the file does).
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, BinaryIO

from pxe_fetch.contract.paths import LONGEST_PATH, STAGING_SUFFIX

MOST_MEMBERS = 1_000_000  # of an archive that a node unpacks
MAX_DEPTH = 256  # folders inside one another; os.walk and shutil.rmtree of Python 3.11 recurse
HEADERS_LIMIT = 1024 * 1024  # bytes: names, fields and a sparse file's map, before a member's content
_PIECE = 256 * 1024  # bytes read at a time to skip them
# What tarfile raises for senseless numbers or fields; it differs from one Python to the next.
_PARSE_ERRORS = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError)
_FILE_MODE = 0o755  # the bits of a mode that are taken from an archive: no set-id bits, no write permission for others


class TarReader:
    """The members of an uncompressed tar archive, in order. Read the content of one before asking for the next."""

    def __init__(self, stream: BinaryIO | io.BufferedIOBase) -> None:
        """Read from `stream`, which need not be seekable and is not closed."""
        self._source = _Source(stream)
        self._archive: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield every member; names that are not UTF-8 have surrogate escapes.

        Raises tarfile.TarError where the archive is damaged, is cut off, or has headers larger than HEADERS_LIMIT, and
        whatever reading the stream raises.
        """
        while (member := self._next()) is not None:
            yield member
        self._source.skip_rest()

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Yield the content of the regular file `member`, the last one yielded, piece by piece; holes read as zeros.

        Raises tarfile.TarError where the archive is cut off, and whatever reading the stream raises.
        """
        source: IO[bytes] | _Source | None = self._source
        if member.sparse:
            source = self._archive.extractfile(member) if self._archive else None
        else:
            self._source.seek(member.offset_data)
        left = member.size
        while left:
            piece = source.read(min(left, _PIECE)) if source else b""
            if not piece:
                raise tarfile.ReadError(f"the member {member.name!r} is cut off")
            left -= len(piece)
            yield piece

    def _next(self) -> tarfile.TarInfo | None:
        self._source.headers_left = HEADERS_LIMIT
        try:
            if self._archive is None:
                self._archive = _open(self._source)
            member = self._archive.next()
        except RecursionError:  # tarfile reads a header behind a header so
            raise tarfile.ReadError("a member has too many headers") from None
        except _PARSE_ERRORS as error:
            raise tarfile.ReadError(f"a member cannot be read: {error}") from error
        finally:
            self._source.headers_left = None
        if member is None and self._source.last_block.strip(b"\0"):
            raise tarfile.ReadError("a member's header is damaged")
        if member is not None:
            _check_extents(member)
        shared = self._archive.pax_headers
        if shared and sum(len(key) + len(value) for key, value in shared.items()) > HEADERS_LIMIT:
            raise tarfile.ReadError("the fields that all members share are too large")
        if sys.version_info < (3, 13):
            self._archive.members.clear()  # type: ignore[attr-defined]  # it keeps every member that it has read
        return member


def _check_extents(member: tarfile.TarInfo) -> None:
    """Raise tarfile.ReadError unless a file that holds what the archive has of `member` is possible."""
    if member.size < 0:
        raise tarfile.ReadError(f"the member {member.name!r} has a size below zero")
    end = 0
    extents: list[tuple[int, int]] = member.sparse or []  # type: ignore[assignment]  # typeshed has it as a number
    for offset, size in extents:  # what is no hole; tarfile adds (0, 0) for each unused place of a header
        if size and (size < 0 or offset < end):
            raise tarfile.ReadError(f"the sparse file {member.name!r} has parts that overlap, or are not in order")
        end = offset + size if size else end
    if end > member.size:
        raise tarfile.ReadError(f"the sparse file {member.name!r} has parts beyond its end")


def _open(source: _Source) -> tarfile.TarFile:
    if sys.version_info >= (3, 13):
        return tarfile.TarFile(fileobj=source, errors="surrogateescape", stream=True)  # keeps no members
    return tarfile.TarFile(fileobj=source, errors="surrogateescape")


class _Source(io.BufferedIOBase):
    """The archive as tarfile reads it: forwards only, with bounded headers."""

    def __init__(self, stream: BinaryIO | io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._position = 0
        self.headers_left: int | None = None  # bytes of headers that may still be read; None: content is read
        self.last_block = b""  # the last bytes read as a header

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        size = -1 if size is None else size
        if self.headers_left is not None:
            if not 0 <= size <= self.headers_left:
                raise tarfile.ReadError(f"the headers of a member are larger than {HEADERS_LIMIT} bytes")
            self.headers_left -= size
        data = self._stream.read(size)
        self._position += len(data)
        if self.headers_left is not None:
            self.last_block = data
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        """Skip to `position`, or to the end of the archive if that is before it, which the next read shows."""
        if whence != io.SEEK_SET or position < self._position:
            raise tarfile.ReadError("the members overlap")
        while self._position < position:
            passed = len(self._stream.read(min(position - self._position, _PIECE)))
            if not passed:
                break
            self._position += passed
        return self._position

    def skip_rest(self) -> None:
        """Read what follows the archive, so that a decompressor checks all of it."""
        while self._stream.read(_PIECE):
            pass


def leads_outside(target: str, *, depth: int) -> bool:
    """Return whether a symbolic link could lead out of the archive: one to `target`, `depth` folders deep.

    Only a relative target with `..` at its front alone, and no more of them than the link is deep, cannot, whatever
    else in the archive is a link.
    """
    parts = PurePosixPath(target).parts
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    return not target or target.startswith("/") or climbs > depth or ".." in parts[climbs:] or "\0" in target


def member_path(name: str) -> str:
    """Return the path of a member as it is unpacked: without empty parts and dots; empty for the whole tree."""
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def refusal(member: tarfile.TarInfo) -> str:
    """Return why no node unpacks `member`, whatever else is in the archive; empty if nothing in it forbids that."""
    path, links = member_path(member.name), [(f"the member {member.name!r}", member.name)]
    if member.islnk():
        links.append((f"the hard link {member.name!r}", member.linkname))
    for what, name in links:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            return f"{what} leads out of the archive: {name!r}"
        if (depth := member_path(name).count("/") + 1) > MAX_DEPTH:
            return f"the archive has a member that is {depth} folders deep; the limit is {MAX_DEPTH}"
    if not path and not member.isdir():
        return f"the member {member.name!r} would replace the whole tree"
    if member.issym() and leads_outside(member.linkname, depth=path.count("/")):
        return f"the link {member.name!r} leads out of the archive, or could: {member.linkname!r}"
    if not (member.isdir() or member.isreg() or member.issym() or member.islnk()):
        return f"the member {member.name!r} is not a file, folder or link"
    return ""


def file_mode(mode: int) -> int:
    """Return the mode that a file with `mode` in the archive gets on the node: that of tarfile's `data` filter."""
    mode &= _FILE_MODE
    return (mode if mode & 0o100 else mode & ~0o111) | 0o600


def folder_mode(mode: int) -> int:
    """Return the mode that a folder with `mode` in the archive gets on the node. Its owner can create files in it."""
    return mode & _FILE_MODE | 0o700


def longest_member(dest: str) -> int:
    """Return how many bytes the path of a member may have if the archive is unpacked at `dest`."""
    return LONGEST_PATH - len(f"{dest}.{STAGING_SUFFIX}/".encode())
