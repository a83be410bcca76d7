"""One interface to an ISO and to a folder of boot files. Files are found by name and read in place."""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import Span, span_pieces
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaEntry:
    """One name on a medium. `path` has no leading slash; `mode` is st_mode, including the file type."""

    path: str
    mode: int
    size: int
    spans: tuple[Span, ...]  # of a file's content, in order: positions in the ISO, or in the file itself
    uid: int = 0
    gid: int = 0
    target: str = ""  # of a symbolic link

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


class Media(Protocol):
    """A source of boot files."""

    @property
    def path(self) -> Path:
        """The local path of the ISO or the folder."""

    @property
    def input_path(self) -> Path:
        """The path the user gave, for messages: `path`, or the archive it was unpacked from."""

    @property
    def entries(self) -> Mapping[str, MediaEntry]:
        """All names, by path."""

    def find(self, path: str) -> MediaEntry | None:
        """The entry at `path`: an exact match, else one that differs only in case, else None."""

    def below(self, path: str) -> list[MediaEntry]:
        """All entries below the directory `path`, parents first."""

    def read(self, entry: MediaEntry, *, offset: int = 0, size: int | None = None) -> bytes:
        """A file's content: all of it, or `size` bytes at `offset`; fewer if the file ends before that."""

    def pieces(self, entry: MediaEntry) -> Iterator[bytes]:
        """A file's content, block by block. Raises OSError if the file has become shorter."""


class Names(dict[str, MediaEntry]):
    """All names on a medium, by path. `add` counts them against the limits; add all before the first look-up."""

    def __init__(self, entries: Iterable[MediaEntry] = ()) -> None:
        super().__init__()
        self._count, self._size = Usage(Limit.NAMES), Usage(Limit.NAMES_SIZE)
        for entry in entries:
            self.add(entry)

    def add(self, entry: MediaEntry) -> None:
        """Add a name. Raises LimitError."""
        Limit.PATH.check(max(len(entry.path), len(entry.target)))
        self._count.add()
        self._size.add(len(entry.path) + len(entry.target))
        self[entry.path] = entry

    def find(self, path: str) -> MediaEntry | None:
        """Implementation of `Media.find`."""
        wanted = path.strip("/")
        return self.get(wanted) or self._folded.get(wanted.lower())

    def below(self, path: str) -> list[MediaEntry]:
        """Implementation of `Media.below`."""
        prefix = f"{path.strip('/')}/"
        found = []
        for name in self._sorted[bisect_left(self._sorted, prefix) :]:
            if not name.startswith(prefix):
                break
            found.append(self[name])
        return found

    @cached_property
    def _folded(self) -> dict[str, MediaEntry]:
        folded: dict[str, MediaEntry] = {}
        for name, entry in self.items():
            folded.setdefault(name.lower(), entry)
        return folded

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self)


def clipped(entry: MediaEntry, size: int) -> MediaEntry:
    """The file `entry` cut off after its first `size` bytes."""
    spans, left = [], size
    for span in entry.spans:
        if left:
            spans.append(Span(offset=span.offset, size=min(span.size, left)))
            left -= spans[-1].size
    return replace(entry, size=size, spans=tuple(spans))


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A folder of boot files, such as a pxe-dir: a Media."""

    path: Path
    input_path: Path
    entries: Names

    def find(self, path: str) -> MediaEntry | None:
        return self.entries.find(path)

    def below(self, path: str) -> list[MediaEntry]:
        return self.entries.below(path)

    def read(self, entry: MediaEntry, *, offset: int = 0, size: int | None = None) -> bytes:
        with (self.path / entry.path).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), entry.size - offset if size is None else size, offset)

    def pieces(self, entry: MediaEntry) -> Iterator[bytes]:
        with (self.path / entry.path).open("rb") as file:
            yield from span_pieces(file, offset=0, size=entry.size)


def folder(path: Path, *, input_path: Path | None = None) -> Folder:
    """Read the names in the folder `path`; `input_path` is what it was unpacked from, by default `path`.

    A link stands for its target, which must be inside the folder. Raises InputError if the folder cannot be read or a
    link leads out of it, and LimitError if it is far too large to be a pxe-dir.
    """
    entries = Names()
    try:
        _Walk(top=path, real_top=path.resolve(strict=True), input_path=input_path or path, entries=entries).below(
            "", depth=0
        )
    except OSError as error:
        message = f"cannot read the image {input_path or path}: {error.filename}: {error.strerror}"
        raise InputError(Problem(reference="image-unreadable", message=message)) from error
    return Folder(path=path, input_path=input_path or path, entries=entries)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walk:
    """Walks through a folder."""

    top: Path
    real_top: Path
    input_path: Path
    entries: Names

    def below(self, prefix: str, *, depth: int) -> None:
        Limit.DEPTH.check(depth)
        with os.scandir(self.top / prefix) as names:
            for name in sorted(names, key=lambda one: one.name):
                path = f"{prefix}{name.name}"
                status = name.stat(follow_symlinks=False)
                target = ""
                if stat.S_ISLNK(status.st_mode):
                    target = os.readlink(name.path)  # noqa: PTH115  a str, as in the image
                    status = self._link_target(path) or status
                regular = stat.S_ISREG(status.st_mode)
                self.entries.add(
                    MediaEntry(
                        path=path,
                        mode=status.st_mode,
                        size=status.st_size if regular else 0,
                        spans=(Span(offset=0, size=status.st_size),) if regular else (),
                        uid=status.st_uid,
                        gid=status.st_gid,
                        target=target,
                    )
                )
                if name.is_dir(follow_symlinks=False):
                    self.below(f"{path}/", depth=depth + 1)

    def _link_target(self, path: str) -> os.stat_result | None:
        """The status of a link's target; None if it is missing, or a folder (which is listed at its own path)."""
        real = real_path(self.top / path)
        if not real.is_relative_to(self.real_top):
            raise InputError(
                Problem(
                    reference="image-link-outside",
                    message=f"{path} in {self.input_path} is a link to {real}, outside the folder",
                    hint="replace the link with the file itself, or remove it",
                )
            )
        return real.stat() if real.is_file() else None
