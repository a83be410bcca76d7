"""Artifacts given as local files or folders: their names in the layout, and what nodes read of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from pxe_fetch.contract.archive import longest_member
from pxe_fetch.contract.chunks import SUFFIX
from pxe_fetch.contract.model import NO_CHUNKS, Artifact, Chunks, Digest, FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_pack import folder_archive
from pxe_pack.chunks import ChunkSizeError, chunk_size, list_size
from pxe_pack.hashing import Tally, tally
from pxe_pack.source_folder import Survey, shown, survey

FOLDER = "other-user-artifacts"
_LEAVE_OUT = "leave it out: pxe-pack fills it in"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A file that goes into the layout, for one artifact or several: a copy of a file, or the archive of a folder."""

    source: Path
    name: str  # in the layout's folder
    size: int  # bytes; of an archive the most that it may have
    artifacts: tuple[str, ...]  # names
    folder: Survey | None = None  # what is in it, where `source` is a folder
    wishes: tuple[Chunks | None, ...] = ()  # what its artifacts say of chunks
    chunk: int | None = None  # bytes of each of its chunks; None: the layout has no list of their digests

    @property
    def content_size(self) -> int:
        """The bytes of the file, or of all files in the folder."""
        return self.folder.size if self.folder else self.size

    @property
    def planned_chunk(self) -> int | None:
        """The bytes of a chunk, None where there are none. Only packing tells whether an archive is large enough."""
        return self.chunk if not self.folder or any(self.wishes) else None

    @property
    def list_name(self) -> str:
        """What the list of its chunks' digests is called, beside it."""
        return self.name + SUFFIX

    @property
    def room(self) -> int:
        """Bytes that it takes in the layout, its list included."""
        return self.size + list_size(self.size, chunk=self.chunk)

    def url(self, base: str) -> str:
        """Its URL below `base`."""
        return _below(base, self.name)

    def list_url(self, base: str) -> str:
        """The URL of that list below `base`."""
        return _below(base, self.list_name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A local file as it lies in the layout."""

    path: Path
    content: Tally
    chunks: Chunks | None  # where the list of its chunks' digests is


def local_files(config: FetchConfig, *, beside: Path) -> tuple[list[LocalFile], list[Problem]]:
    """The local files of a configuration whose relative paths start at `beside`, and what is wrong with them."""
    found: dict[str, LocalFile] = {}
    problems: list[Problem] = []
    for artifact in config.artifacts:
        if artifact.source is None:
            continue
        path = beside / artifact.source
        if problem := _unreadable(artifact, path):
            problems.append(problem)
            continue
        first = found.get(_name(path))
        if first is None:
            first, wrong = _local_file(path)
            problems += wrong
        elif not _same(first, path):
            problems.append(_clash(first, path))
        found[first.name] = replace(
            first, artifacts=(*first.artifacts, artifact.name), wishes=(*first.wishes, artifact.chunks)
        )
        if first.folder:
            problems += _unpacking(artifact, path, first.folder)
    files, wrong = _cut(found)
    return files, problems + wrong


def _name(path: Path) -> str:
    """What the file or folder `path` is called in the layout."""
    name = Path(os.path.normpath(path)).name  # of `.` and `..` too
    return name + folder_archive.SUFFIX if path.is_dir() else name


def _local_file(path: Path) -> tuple[LocalFile, list[Problem]]:
    """The file or folder `path`, of no artifact yet; and what of it cannot be packed."""
    if not path.is_dir():
        return LocalFile(source=path, name=_name(path), size=path.stat().st_size, artifacts=()), []
    folder, problems = survey(path)
    return LocalFile(source=path, name=_name(path), size=folder.archive, folder=folder, artifacts=()), problems


def _unpacking(artifact: Artifact, path: Path, folder: Survey) -> Iterator[Problem]:
    """What keeps a node from unpacking the folder for `artifact`."""
    if artifact.extract not in {None, "tar"}:
        yield Problem(
            reference="source-folder-extract",
            message=f"artifact {artifact.name} has `extract: {artifact.extract}`, and its source, {path}, is a folder",
            hint="leave it out: a folder is packed as one archive, and unpacked at dest",
        )
    if (length := len(folder.longest.encode())) > (most := longest_member(artifact.dest)):
        yield Problem(
            reference="source-member",
            message=f"{shown(path / folder.longest)} has a path of {length} bytes in the folder, and below "
            f"{artifact.dest} {most} are the most",
            hint="shorten the names, or choose a shorter dest",
        )


def _cut(found: Mapping[str, LocalFile]) -> tuple[list[LocalFile], list[Problem]]:
    """The files with the size of their chunks, by what their artifacts wish; and what is wrong with that."""
    files: list[LocalFile] = []
    problems: list[Problem] = []
    for file in found.values():
        try:
            chunk = chunk_size(file.size, file.wishes)
        except ChunkSizeError as error:
            problems.append(Problem(reference="source-chunks", message=f"{file.source} {error}", hint=error.hint))
            continue
        files.append(replace(file, chunk=chunk))
        if chunk and file.list_name in found:
            problems.append(_list_clash(file, found[file.list_name]))
    return files, problems


def _below(base: str, name: str) -> str:
    return base.rstrip("/") + "/" + quote(name, safe="")


def _unreadable(artifact: Artifact, path: Path) -> Problem | None:
    reason = ""
    try:
        if not path.exists():
            reason = "does not exist"
        elif path.is_file():
            if (artifact.source or "").endswith("/"):
                reason = "is a file, and `/` at the end means a folder"
            else:
                path.open("rb").close()
        elif not path.is_dir():
            reason = "is neither a file nor a folder"
        elif not _name(path).removesuffix(folder_archive.SUFFIX):
            reason = "is the root folder, which has no name"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if not reason:
        return None
    return Problem(
        reference="source-unreadable",
        message=f"the source of artifact {artifact.name}, {path}, {reason}",
        hint="relative paths in `source:` start at the configuration's folder",
    )


def _same(one: LocalFile, other: Path) -> bool:
    if one.source.samefile(other):
        return True
    if one.folder or other.is_dir():
        return False
    return one.source.stat().st_size == other.stat().st_size and tally(one.source) == tally(other)


def _clash(one: LocalFile, other: Path) -> Problem:
    what = "different folders" if one.folder and other.is_dir() else "different files"
    return Problem(
        reference="source-name-clash",
        message=f"{one.source} and {other} are {what}, and both would be {FOLDER}/{one.name}",
        hint="rename one of them",
    )


def _list_clash(file: LocalFile, other: LocalFile) -> Problem:
    message = f"{FOLDER}/{file.list_name} would be {other.source}, and the list of the chunk digests of {file.source}"
    hint = "rename one of them, or say `chunks: none` where the list is not wanted"
    return Problem(reference="source-name-clash", message=message, hint=hint)


def with_urls(
    config: FetchConfig, files: Mapping[LocalFile, Exported], *, base: str
) -> tuple[FetchConfig, list[Problem]]:
    """The configuration as a node reads it: `source` become `urls`, digests and size; and digests that were wrong.

    A node gets the digests of the chunks or that of the whole: both would have it read the file twice.
    """
    by_artifact = {name: (file, exported) for file, exported in files.items() for name in file.artifacts}
    problems: list[Problem] = []
    artifacts = []
    for artifact in config.artifacts:
        if artifact.source is None:
            artifacts.append(artifact)
            continue
        file, exported = by_artifact[artifact.name]
        content = exported.content
        problems += _contradictions(artifact, file, exported)
        extract = "tar" if file.folder else artifact.extract
        fetched = replace(artifact, source=None, urls=(file.url(base),), size=content.size, extract=extract)
        if exported.chunks and artifact.chunks != NO_CHUNKS:
            artifacts.append(replace(fetched, digest=None, chunks=exported.chunks))
        else:
            digest = artifact.digest or Digest(algorithm="sha256", hex=content.sha256)
            artifacts.append(replace(fetched, digest=digest, chunks=None))
    folder = base.rstrip("/") + "/" if files else None
    return replace(config, artifacts=tuple(artifacts), artifact_url=folder), problems


def _contradictions(artifact: Artifact, file: LocalFile, exported: Exported) -> list[Problem]:
    problems = []
    counted = exported.content
    what = f"the archive of {file.source}" if file.folder else f"{file.source}"
    if artifact.size is not None and artifact.size != counted.size:
        message = f"artifact {artifact.name} has `size: {artifact.size}`, and {what} has {counted.size} bytes"
        problems.append(Problem(reference="source-size", message=message, hint=_LEAVE_OUT))
    given = artifact.digest
    if given and given.hex != (found := _digest(exported, algorithm=given.algorithm)):
        message = f"artifact {artifact.name} has `{given.algorithm}: {given.hex}`, and {what} has {found}"
        problems.append(Problem(reference="source-digest", message=message, hint=_LEAVE_OUT))
    return problems


def _digest(exported: Exported, *, algorithm: str) -> str:
    """The file's digest in hexadecimal. Another than SHA-256 is seldom asked for: the file is read again for it."""
    if algorithm == "sha256":
        return exported.content.sha256
    with exported.path.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
