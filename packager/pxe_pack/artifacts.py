"""Artifacts given as local files: what they are, their names in the layout, their place in the node's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from pxe_fetch.contract.model import Artifact, Digest, FetchConfig
from pxe_fetch.contract.problem import Problem
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

    def url(self, base: str) -> str:
        """Its URL below `base`."""
        return base.rstrip("/") + "/" + quote(self.name, safe="")


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
    return list(found.values()), problems


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


def with_urls(config: FetchConfig, files: Mapping[LocalFile, Tally], *, base: str) -> tuple[FetchConfig, list[Problem]]:
    """The configuration as a node reads it: `source` become `urls`, digest and size; and digests that were wrong."""
    by_artifact = {name: (file, counted) for file, counted in files.items() for name in file.artifacts}
    problems: list[Problem] = []
    artifacts = []
    for artifact in config.artifacts:
        if artifact.source is None:
            artifacts.append(artifact)
            continue
        file, counted = by_artifact[artifact.name]
        problems += _contradictions(artifact, file, counted)
        digest = artifact.digest or Digest(algorithm="sha256", hex=counted.sha256)
        artifacts.append(
            replace(artifact, source=None, urls=(file.url(base),), digest=digest, size=counted.size, chunks=None)
        )
    exported = base.rstrip("/") + "/" if files else None
    return replace(config, artifacts=tuple(artifacts), artifact_url=exported), problems


def _contradictions(artifact: Artifact, file: LocalFile, counted: Tally) -> list[Problem]:
    problems = []
    if artifact.size is not None and artifact.size != counted.size:
        message = f"artifact {artifact.name} has `size: {artifact.size}`, and {file.source} has {counted.size} bytes"
        problems.append(Problem(reference="source-size", message=message, hint=_LEAVE_OUT))
    if artifact.digest and artifact.digest.algorithm == "sha256" and artifact.digest.hex != counted.sha256:
        message = (
            f"artifact {artifact.name} has `sha256: {artifact.digest.hex}`, and {file.source} has {counted.sha256}"
        )
        problems.append(Problem(reference="source-digest", message=message, hint=_LEAVE_OUT))
    return problems
