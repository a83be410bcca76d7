"""Artifacts given as local files: what they are, their names in the layout, their place in the node's configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from pxe_fetch.contract.chunks import SUFFIX
from pxe_fetch.contract.model import NO_CHUNKS, Artifact, Chunks, Digest, FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_pack.chunks import ChunkSizeError, chunk_size, list_size
from pxe_pack.hashing import Tally, tally

FOLDER = "other-user-artifacts"
_LEAVE_OUT = "leave it out: pxe-pack fills it in"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A file that goes into the layout, for one artifact or several."""

    source: Path
    name: str  # in the layout's folder
    size: int  # bytes
    artifacts: tuple[str, ...]  # names
    chunk: int | None = None  # bytes of each of its chunks; None: the layout has no list of their digests

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
        file = LocalFile(source=path, name=path.name, size=path.stat().st_size, artifacts=(artifact.name,))
        first = found.setdefault(file.name, file)
        if first is not file:
            if not _same(first.source, path):
                problems.append(_clash(first, file))
            found[file.name] = replace(first, artifacts=(*first.artifacts, artifact.name))
    files, wrong = _cut(found, wishes={artifact.name: artifact.chunks for artifact in config.artifacts})
    return files, problems + wrong


def _cut(
    found: Mapping[str, LocalFile], *, wishes: Mapping[str, Chunks | None]
) -> tuple[list[LocalFile], list[Problem]]:
    """The files with the size of their chunks, by what their artifacts wish; and what is wrong with that."""
    files: list[LocalFile] = []
    problems: list[Problem] = []
    for file in found.values():
        try:
            chunk = chunk_size(file.size, [wishes[artifact] for artifact in file.artifacts])
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
        if not path.is_file():
            reason = "is not a file" if path.exists() else "does not exist"
        else:
            path.open("rb").close()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if not reason:
        return None
    return Problem(
        reference="source-unreadable",
        message=f"the source of artifact {artifact.name}, {path}, {reason}",
        hint="relative paths in `source:` start at the configuration's folder",
    )


def _same(one: Path, other: Path) -> bool:
    return one.samefile(other) or (one.stat().st_size == other.stat().st_size and tally(one) == tally(other))


def _clash(one: LocalFile, other: LocalFile) -> Problem:
    return Problem(
        reference="source-name-clash",
        message=f"{one.source} and {other.source} are different files, and both would be {FOLDER}/{one.name}",
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
        problems += _contradictions(artifact, file, content)
        fetched = replace(artifact, source=None, urls=(file.url(base),), size=content.size)
        if exported.chunks and artifact.chunks != NO_CHUNKS:
            artifacts.append(replace(fetched, digest=None, chunks=exported.chunks))
        else:
            digest = artifact.digest or Digest(algorithm="sha256", hex=content.sha256)
            artifacts.append(replace(fetched, digest=digest, chunks=None))
    folder = base.rstrip("/") + "/" if files else None
    return replace(config, artifacts=tuple(artifacts), artifact_url=folder), problems


def _contradictions(artifact: Artifact, file: LocalFile, counted: Tally) -> list[Problem]:
    problems = []
    if artifact.size is not None and artifact.size != counted.size:
        message = f"artifact {artifact.name} has `size: {artifact.size}`, and {file.source} has {counted.size} bytes"
        problems.append(Problem(reference="source-size", message=message, hint=_LEAVE_OUT))
    given = artifact.digest
    if given and given.hex != (found := _digest(file, counted, algorithm=given.algorithm)):
        message = f"artifact {artifact.name} has `{given.algorithm}: {given.hex}`, and {file.source} has {found}"
        problems.append(Problem(reference="source-digest", message=message, hint=_LEAVE_OUT))
    return problems


def _digest(file: LocalFile, counted: Tally, *, algorithm: str) -> str:
    """The file's digest in hexadecimal. Another than SHA-256 is seldom asked for: the file is read again for it."""
    if algorithm == "sha256":
        return counted.sha256
    with file.source.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
