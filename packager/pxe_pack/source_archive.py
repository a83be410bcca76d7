"""An archive or a compressed file given as an artifact's `source`: whether a node can unpack it, and its unpacked size.

What a node unpacks is defined in pxe_fetch.contract.tar and pxe_fetch.contract.compression.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError, ZstdFile
else:
    from backports.zstd import ZstdError, ZstdFile

from pxe_fetch.contract.compression import HEAD, ZSTD_WINDOW, kind_of, zstd_window
from pxe_fetch.contract.model import Artifact
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.quantity import amount
from pxe_fetch.contract.tar import MOST_MEMBERS, TarReader, longest_member, member_path, refusal
from pxe_pack.source_folder import printable

_READERS: dict[str, Callable[[BinaryIO], object]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "xz": lzma.LZMAFile,
    "bzip2": bz2.BZ2File,
    "zstd": ZstdFile,
}
_DAMAGED = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, ZstdError, ValueError)
_MOST_SHOWN = 20  # problems shown for one archive
_FOLDER, _FILE, _LINK = "a folder", "a file", "a link"


def scan_archive(artifact: Artifact, path: Path) -> tuple[int | None, list[Problem]]:
    """The bytes of the files in the archive at `path`, and a problem for each reason why no node would unpack it.

    The bytes are None unless it is a whole tar archive. Raises OSError if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(0)
        kind = kind_of(head)
        if kind == "zstd" and (window := zstd_window(head)) > ZSTD_WINDOW:
            return None, [
                _problem(
                    path,
                    f"is compressed with a window of {amount(window)}; nodes take {amount(ZSTD_WINDOW)} at most",
                    hint="compress it with `zstd --long=27`, or without --long and --ultra",
                )
            ]
        if artifact.extract != "tar":
            is_known = kind is not None or not head
            reason = "is not compressed with gzip, xz, bzip2 or zstd"
            return None, [] if is_known else [_problem(path, reason, hint="leave `extract` out, or compress it")]
        return _scan_tar(file, kind, path=path, longest=longest_member(artifact.dest))


def _scan_tar(file: BinaryIO, kind: str | None, *, path: Path, longest: int) -> tuple[int | None, list[Problem]]:
    reasons: list[str] = []
    archive = _Members(longest=longest)
    refused = 0
    try:
        with closing(cast("BinaryIO", _READERS[kind](file) if kind else file)) as content:
            for member in TarReader(content):
                found = [*archive.add(member)]
                refused += len(found)
                reasons += found if refused <= _MOST_SHOWN else []
                if archive.count > MOST_MEMBERS:
                    reasons.append(f"has more than {MOST_MEMBERS:,} members, the most a node unpacks")
                    break
    except (tarfile.TarError, *_DAMAGED) as error:
        reasons.append(f"is not a complete tar archive: {error}")
    except OSError as error:
        if error.errno is not None:
            raise
        reasons.append(f"is damaged: {error}")  # bz2 has no error of its own
    hint = "make the archive without it; relative links may have `..` at their front only"
    if refused > _MOST_SHOWN:
        reasons.append(f"has {refused - _MOST_SHOWN:,} more members that no node unpacks")
    problems = [_problem(path, reason, hint=hint) for reason in reasons]
    return None if problems else archive.size, problems


class _Members:
    """The members seen so far, as a node would have unpacked them."""

    def __init__(self, *, longest: int) -> None:
        self.count = 0
        self.size = 0  # bytes in files
        self._longest = longest  # bytes that a path may have
        self._kinds: dict[str, str] = {}

    def add(self, member: tarfile.TarInfo) -> Iterator[str]:
        """Yield the reasons why no node unpacks `member` after those before it."""
        self.count += 1
        path = member_path(member.name)
        if reason := refusal(member):
            yield f"would be refused: {reason}"
        elif len(os.fsencode(member.name)) > self._longest:
            yield f"has a path of more than {self._longest} bytes: {member.name[:60]!r}…"
        elif reason := self._clash(path, member):
            yield reason
        elif path:
            self.size += member.size if member.isreg() else 0
            self._kinds[path] = _FOLDER if member.isdir() else _LINK if member.issym() else _FILE

    def _clash(self, path: str, member: tarfile.TarInfo) -> str:
        """Why `member` does not go together with those before it; empty if it does."""
        for index, letter in enumerate(path):
            if letter == "/" and self._kinds.setdefault(path[:index], _FOLDER) != _FOLDER:
                return f"has {member.name!r} below {path[:index]!r}, which is {self._kinds[path[:index]]}"
        before = self._kinds.get(path)
        if before and (before == _FOLDER) != member.isdir():
            return f"has {member.name!r} twice, as a folder and as something else"
        linked = member_path(member.linkname)
        if member.islnk() and linked != path and self._kinds.get(linked) != _FILE:
            return f"has the hard link {member.name!r} to {member.linkname!r}, which is not a file before it"
        return ""


def _problem(path: Path, reason: str, *, hint: str) -> Problem:
    return Problem(reference="source-archive", message=f"{printable(path)} {reason}", hint=hint)
