"""One interface to an ISO and to a folder of boot files. Files are found by name and read in place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import Span, span_pieces
from pxe_pack.tools import InputError

MAX_FILES = 200_000  # names; no boot medium has more, so a folder with more was given by mistake


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


def found(entries: Mapping[str, MediaEntry], path: str) -> MediaEntry | None:
    """Implementation of `Media.find`."""
    wanted = path.strip("/")
    if exact := entries.get(wanted):
        return exact
    folded = wanted.lower()
    return next((entry for name, entry in entries.items() if name.lower() == folded), None)


def clipped(entry: MediaEntry, size: int) -> MediaEntry:
    """The file `entry` cut off after its first `size` bytes."""
    spans, left = [], size
    for span in entry.spans:
        if left:
            spans.append(Span(offset=span.offset, size=min(span.size, left)))
            left -= spans[-1].size
    return replace(entry, size=size, spans=tuple(spans))


def all_below(entries: Mapping[str, MediaEntry], path: str) -> list[MediaEntry]:
    """Implementation of `Media.below`."""
    prefix = f"{path.strip('/')}/"
    return [entry for name, entry in sorted(entries.items()) if name.startswith(prefix)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A folder of boot files, such as a pxe-dir: a Media."""

    path: Path
    input_path: Path
    entries: Mapping[str, MediaEntry]

    def find(self, path: str) -> MediaEntry | None:
        return found(self.entries, path)

    def below(self, path: str) -> list[MediaEntry]:
        return all_below(self.entries, path)

    def read(self, entry: MediaEntry, *, offset: int = 0, size: int | None = None) -> bytes:
        with (self.path / entry.path).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), entry.size - offset if size is None else size, offset)

    def pieces(self, entry: MediaEntry) -> Iterator[bytes]:
        with (self.path / entry.path).open("rb") as file:
            yield from span_pieces(file, offset=0, size=entry.size)


def folder(path: Path, *, input_path: Path | None = None) -> Folder:
    """Read the names in the folder `path`; `input_path` is what it was unpacked from, by default `path`.

    A link stands for its target, which must be inside the folder. Raises InputError if the folder cannot be read, if a
    link leads out of it, or if it is far too large to be a pxe-dir.
    """
    entries: dict[str, MediaEntry] = {}
    try:
        _Walk(top=path, real_top=path.resolve(strict=True), input_path=input_path or path, entries=entries).below("")
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
    entries: dict[str, MediaEntry]

    def below(self, prefix: str) -> None:
        with os.scandir(self.top / prefix) as names:
            for name in sorted(names, key=lambda one: one.name):
                path = f"{prefix}{name.name}"
                status = name.stat(follow_symlinks=False)
                target = ""
                if stat.S_ISLNK(status.st_mode):
                    target = os.readlink(name.path)  # noqa: PTH115  a str, as in the image
                    status = self._link_target(path) or status
                regular = stat.S_ISREG(status.st_mode)
                self.entries[path] = MediaEntry(
                    path=path,
                    mode=status.st_mode,
                    size=status.st_size if regular else 0,
                    spans=(Span(offset=0, size=status.st_size),) if regular else (),
                    uid=status.st_uid,
                    gid=status.st_gid,
                    target=target,
                )
                if len(self.entries) > MAX_FILES:
                    raise self._too_many()
                if name.is_dir(follow_symlinks=False):
                    self.below(f"{path}/")

    def _link_target(self, path: str) -> os.stat_result | None:
        """The status of a link's target; None if it is missing, or a folder (which is listed at its own path)."""
        real = (self.top / path).resolve()
        if not real.is_relative_to(self.real_top):
            raise InputError(
                Problem(
                    reference="image-link-outside",
                    message=f"{path} in {self.input_path} is a link to {real}, outside the folder",
                    hint="replace the link by the file itself, or remove it",
                )
            )
        return real.stat() if real.is_file() else None

    def _too_many(self) -> InputError:
        return InputError(
            Problem(
                reference="image-too-many-files",
                message=f"{self.input_path} has more than {MAX_FILES:,} files, so it is not a folder of boot files",
                hint="use the folder that Image Customizer wrote with `--output-image-format pxe-dir`",
            )
        )
