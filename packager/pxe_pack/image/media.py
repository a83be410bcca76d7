"""Where boot files come from: an ISO or a folder, asked alike. Files are found by name and read where they lie."""

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

MANY = 200_000  # names; more has no medium to boot from, so a folder that has them was input_path by mistake


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaEntry:
    """One name on a medium. `path` has no leading slash; `mode` is st_mode, with the file type."""

    path: str
    mode: int
    size: int
    spans: tuple[Span, ...]  # of a file's content, in order: in the ISO, or in the file itself
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
    """Where boot files come from."""

    @property
    def path(self) -> Path:
        """The ISO, or the folder, on this machine."""

    @property
    def input_path(self) -> Path:
        """What the user gave, for messages: the path, or the archive that was unpacked there."""

    @property
    def entries(self) -> Mapping[str, MediaEntry]:
        """Every name there is, by its path."""

    def find(self, path: str) -> MediaEntry | None:
        """The entry at `path`; as the medium spells it, else whatever its case, else None."""

    def below(self, path: str) -> list[MediaEntry]:
        """Everything below the directory `path`, parents first."""

    def read(self, entry: MediaEntry, *, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file: all, or `size` of them from `offset`. Fewer where the file ends sooner."""

    def pieces(self, entry: MediaEntry) -> Iterator[bytes]:
        """The content of a file, block by block. Raises OSError when it became shorter."""


def found(entries: Mapping[str, MediaEntry], path: str) -> MediaEntry | None:
    """What `Media.find` gives."""
    wanted = path.strip("/")
    if exact := entries.get(wanted):
        return exact
    folded = wanted.lower()
    return next((entry for name, entry in entries.items() if name.lower() == folded), None)


def clipped(entry: MediaEntry, size: int) -> MediaEntry:
    """The file `entry` as far as its first `size` bytes."""
    spans, left = [], size
    for span in entry.spans:
        if left:
            spans.append(Span(offset=span.offset, size=min(span.size, left)))
            left -= spans[-1].size
    return replace(entry, size=size, spans=tuple(spans))


def all_below(entries: Mapping[str, MediaEntry], path: str) -> list[MediaEntry]:
    """What `Media.below` gives."""
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
    """The folder `path`, read by name; `input_path` is what it was unpacked from.

    A link inside it stands for what it leads to, if that is inside too. Raises InputError when it cannot be read, a
    link leads out of it, or it is far too large to be a pxe-dir.
    """
    entries: dict[str, MediaEntry] = {}
    try:
        _Walk(top=path, real_top=path.resolve(strict=True), input_path=input_path or path, entries=entries).below("")
    except OSError as error:
        message = f"the image {input_path or path} cannot be read: {error.filename}: {error.strerror}"
        raise InputError(Problem(reference="image-unreadable", message=message)) from error
    return Folder(path=path, input_path=input_path or path, entries=entries)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walk:
    """The way through a folder."""

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
                    status = self._behind(path) or status
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
                if len(self.entries) > MANY:
                    raise self._too_many()
                if name.is_dir(follow_symlinks=False):
                    self.below(f"{path}/")

    def _behind(self, path: str) -> os.stat_result | None:
        """What a link leads to; None where that is nothing, or a folder (which is listed at its own place)."""
        real = (self.top / path).resolve()
        if not real.is_relative_to(self.real_top):
            raise InputError(
                Problem(
                    reference="image-link-outside",
                    message=f"{path} in {self.input_path} is a link that leads out of it, to {real}",
                    hint="put the file itself there, or take the link away",
                )
            )
        return real.stat() if real.is_file() else None

    def _too_many(self) -> InputError:
        return InputError(
            Problem(
                reference="image-too-many-files",
                message=f"{self.input_path} has more than {MANY:,} files: it is no folder of boot files",
                hint="give the folder that Image Customizer wrote with `--output-image-format pxe-dir`",
            )
        )
