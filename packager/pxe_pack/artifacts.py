"""Artifacts given as local files or folders: their names in the layout, and entries in the node's configuration."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract.chunks import SUFFIX
from pxe_fetch.contract.model import NO_CHUNKS, Artifact, Chunks, Digest, FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.tar import longest_member
from pxe_pack import folder_archive
from pxe_pack.chunks import ChunkSizeError, chunk_size, list_size
from pxe_pack.hashing import SizeAndDigest, hash_file
from pxe_pack.layout.manifest import FOLDER, path_problem
from pxe_pack.layout.urls import file_url
from pxe_pack.source_archive import scan_archive
from pxe_pack.source_folder import FolderScan, printable, scan_folder

_LEAVE_OUT = "leave it out; pxe-pack fills it in"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A file of the layout, used by one or more artifacts: a copy of a file, or the archive of a folder."""

    source: Path
    name: str  # below FOLDER in the layout
    size: int  # bytes; for an archive, the upper limit
    artifacts: tuple[str, ...]  # names
    folder: FolderScan | None = None  # set if `source` is a folder
    requested_chunks: tuple[Chunks | None, ...] = ()  # the `chunks` key of each artifact
    chunk: int | None = None  # bytes in each chunk; None: no list of chunk digests
    unpacked: int | None = None  # bytes of the files in it, if it is an archive that nodes unpack

    @property
    def content_size(self) -> int:
        """Bytes in the file, or in all files of the folder."""
        return self.folder.size if self.folder else self.size

    @property
    def installed_size(self) -> int:
        """Bytes that it takes on a node, in files."""
        return self.content_size if self.unpacked is None else self.unpacked

    @property
    def planned_chunk(self) -> int | None:
        """Bytes in each chunk; None if it has none, or if that depends on the size of the archive."""
        return self.chunk if not self.folder or any(self.requested_chunks) else None

    @property
    def list_name(self) -> str:
        """The name of its list of chunk digests."""
        return self.name + SUFFIX

    @property
    def disk_space(self) -> int:
        """Bytes it takes in the layout, including its list."""
        return self.size + list_size(self.size, chunk=self.chunk)

    def url(self, base: str) -> str:
        """Its URL below `base`."""
        return file_url(base, self.name)

    def list_url(self, base: str) -> str:
        """The URL of its list of chunk digests below `base`."""
        return file_url(base, self.list_name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A local file as exported to the layout."""

    path: Path
    content: SizeAndDigest
    chunks: Chunks | None  # URL and digest of its list of chunk digests


def installed_sizes(files: Iterable[LocalFile]) -> dict[str, int]:
    """The bytes that local files take on a node, by artifact name."""
    return {name: file.installed_size for file in files for name in file.artifacts}


def local_files(config: FetchConfig, *, base_dir: Path) -> tuple[list[LocalFile], list[Problem]]:
    """The local files of a configuration, and their problems. Relative paths start at `base_dir`."""
    found: dict[str, LocalFile] = {}
    problems: list[Problem] = []
    for artifact in config.artifacts:
        if artifact.source is None:
            continue
        path = base_dir / artifact.source
        if problem := _unreadable(artifact, path):
            problems.append(problem)
            continue
        first = found.get(_name(path))
        if first is None:
            first, wrong = _local_file(path)
            problems += wrong
        elif not _is_same(first, path):
            problems.append(_name_clash(first, path))
        found[first.name] = replace(
            first,
            artifacts=(*first.artifacts, artifact.name),
            requested_chunks=(*first.requested_chunks, artifact.chunks),
        )
        if first.folder:
            problems += _unpack_problems(artifact, path, first.folder)
        elif artifact.extract not in {None, "none"}:
            unpacked, wrong = scan_archive(artifact, path)
            found[first.name] = replace(found[first.name], unpacked=unpacked)
            problems += wrong
    files, wrong = _with_chunk_sizes(found)
    return files, problems + wrong


def _name(path: Path) -> str:
    """The name of the file or folder `path` in the layout."""
    name = Path(os.path.normpath(path)).name  # resolves `.` and `..`
    return name + folder_archive.SUFFIX if path.is_dir() else name


def _local_file(path: Path) -> tuple[LocalFile, list[Problem]]:
    """The file or folder `path`, with no artifact assigned yet, and a problem for each thing that cannot be packed."""
    if not path.is_dir():
        return LocalFile(source=path, name=_name(path), size=path.stat().st_size, artifacts=()), []
    folder, problems = scan_folder(path)
    return LocalFile(source=path, name=_name(path), size=folder.archive, folder=folder, artifacts=()), problems


def _unpack_problems(artifact: Artifact, path: Path, folder: FolderScan) -> Iterator[Problem]:
    """Reasons why a node could not unpack the folder for `artifact`."""
    if artifact.extract not in {None, "tar"}:
        yield Problem(
            reference="source-folder-extract",
            message=f"artifact {artifact.name} has `extract: {artifact.extract}`, but its source {path} is a folder",
            hint="leave `extract` out: a folder is packed as an archive and unpacked at dest",
        )
    if (length := len(folder.longest.encode())) > (most := longest_member(artifact.dest)):
        yield Problem(
            reference="source-member",
            message=f"the path {printable(path / folder.longest)} has {length} bytes inside the folder; below "
            f"{artifact.dest} the limit is {most}",
            hint="shorten the names, or choose a shorter dest",
        )


def _with_chunk_sizes(found: Mapping[str, LocalFile]) -> tuple[list[LocalFile], list[Problem]]:
    """The files with their chunk sizes set, and the problems with the requested sizes."""
    files: list[LocalFile] = []
    problems: list[Problem] = []
    for file in found.values():
        try:
            chunk = chunk_size(file.size, file.requested_chunks)
        except ChunkSizeError as error:
            problems.append(Problem(reference="source-chunks", message=f"{file.source} {error}", hint=error.hint))
            continue
        files.append(replace(file, chunk=chunk))
        if chunk and file.list_name in found:
            problems.append(_list_clash(file, found[file.list_name]))
    return files, problems


def _unreadable(artifact: Artifact, path: Path) -> Problem | None:
    """A problem if the source cannot be read."""
    reason = ""
    try:
        if not path.exists():
            reason = "does not exist"
        elif path.is_file():
            if (artifact.source or "").endswith("/"):
                reason = "is a file, but `/` at the end means a folder"
            else:
                path.open("rb").close()
        elif not path.is_dir():
            reason = "is neither a file nor a folder"
        elif not _name(path).removesuffix(folder_archive.SUFFIX):
            reason = "is the root folder, which has no name"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if not reason and (why := path_problem(_name(path))):
        reason = f"cannot be in a layout: its name {why}"
    if not reason:
        return None
    return Problem(
        reference="source-unreadable",
        message=f"the source of artifact {artifact.name}, {printable(path)}, {reason}",
        hint="relative paths in `source:` start at the folder of the configuration file",
    )


def _is_same(one: LocalFile, other: Path) -> bool:
    if one.source.samefile(other):
        return True
    if one.folder or other.is_dir():
        return False
    return one.source.stat().st_size == other.stat().st_size and hash_file(one.source) == hash_file(other)


def _name_clash(one: LocalFile, other: Path) -> Problem:
    what = "different folders" if one.folder and other.is_dir() else "different files"
    return Problem(
        reference="source-name-clash",
        message=f"{one.source} and {other} are {what}, but both would be exported as {FOLDER}/{one.name}",
        hint="rename one of them",
    )


def _list_clash(file: LocalFile, other: LocalFile) -> Problem:
    message = f"{other.source} and the chunk digests of {file.source} would both be {FOLDER}/{file.list_name}"
    hint = "rename one of the files, or set `chunks: none` if you do not need the list"
    return Problem(reference="source-name-clash", message=message, hint=hint)


def with_urls(
    config: FetchConfig, files: Mapping[LocalFile, Exported], *, base: str
) -> tuple[FetchConfig, list[Problem]]:
    """The configuration for nodes, with `urls`, digest and size instead of `source`; and a problem for each mismatch.

    A node gets either the chunk digests or the digest of the whole file: with both it would read the file twice.
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
        problems += _mismatches(artifact, file, exported)
        extract = "tar" if file.folder else artifact.extract
        fetched = replace(artifact, source=None, mirrors=((file.url(base),),), size=content.size, extract=extract)
        if exported.chunks and artifact.chunks != NO_CHUNKS:
            artifacts.append(replace(fetched, digest=None, chunks=exported.chunks))
        else:
            digest = artifact.digest or Digest(algorithm="sha256", hex=content.sha256)
            artifacts.append(replace(fetched, digest=digest, chunks=None))
    folder = base.rstrip("/") + "/" if files else None
    return replace(config, artifacts=tuple(artifacts), artifact_url=folder), problems


def _mismatches(artifact: Artifact, file: LocalFile, exported: Exported) -> list[Problem]:
    """A problem for each of size and digest that the configuration states wrongly."""
    problems = []
    counted = exported.content
    what = f"the archive of {file.source}" if file.folder else f"{file.source}"
    if artifact.size is not None and artifact.size != counted.size:
        message = f"artifact {artifact.name} has `size: {artifact.size}`, but {what} has {counted.size} bytes"
        problems.append(Problem(reference="source-size", message=message, hint=_LEAVE_OUT))
    given = artifact.digest
    if given and given.hex != (found := _digest(exported, algorithm=given.algorithm)):
        message = f"artifact {artifact.name} has `{given.algorithm}: {given.hex}`, but {what} has {found}"
        problems.append(Problem(reference="source-digest", message=message, hint=_LEAVE_OUT))
    return problems


def _digest(exported: Exported, *, algorithm: str) -> str:
    """The file's digest in hexadecimal. Digests other than SHA-256 are rare, so the file is read again for them."""
    if algorithm == "sha256":
        return exported.content.sha256
    with exported.path.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
