"""Downloads the files of a mirror by the agent, which verifies them and resumes what an earlier run left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract import quantity
from pxe_fetch.contract.model import Artifact, FetchConfig
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack import agent_downloads
from pxe_pack.agent_downloads import IN_PLACE, as_file
from pxe_pack.console import Step
from pxe_pack.mirror.files import MirroredFile

FAILED = "mirror-download"  # reference of a problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Downloaded:
    """How it ended: the files that are in place, the bytes received for them, and a problem for each other file."""

    files: tuple[MirroredFile, ...]
    sha256: Mapping[str, str]  # of these files, by their paths, as far as the agent knows it
    received: int
    problems: tuple[Problem, ...]


def known_size(files: Sequence[MirroredFile]) -> int | None:
    """The bytes of all `files`; None if the size of one is not known."""
    sizes = [file.artifact.size for file in files]
    return sum(size for size in sizes if size is not None) if None not in sizes else None


def download(config: FetchConfig, files: Sequence[MirroredFile], *, root: Path, work: Path, step: Step) -> Downloaded:
    """Download `files` below `root`, with the settings of `config`; lists of digests that they need are there already.

    `work` is a folder that does not exist. Raises WorkError if nothing could be downloaded at all.
    """
    work.mkdir(parents=True)
    artifacts = tuple(_artifact(file, index, root=root) for index, file in enumerate(files))
    ended = agent_downloads.download(config, artifacts, root=root, work=work, reference=FAILED, step=step)
    phases = [ended.artifacts.get(_name(index), {}).get("phase") for index in range(len(files))]
    here = tuple(file for file, phase in zip(files, phases, strict=True) if phase in IN_PLACE)
    of = "" if len(here) == len(files) else f"{len(here)} of "
    step.note(f"{of}{quantity.count(len(files), 'file')}, of which {phases.count('kept')} were there")
    received = sum(
        size
        for one in ended.artifacts.values()
        if one.get("phase") == "placed" and isinstance(size := one.get("bytes_received"), int)
    )
    found = {file.path: ended.artifacts.get(_name(index), {}).get("sha256") for index, file in enumerate(files)}
    sha256 = {path: digest for path, digest in found.items() if isinstance(digest, str)}
    return Downloaded(files=here, sha256=sha256, received=received, problems=tuple(_failures(files, ended)))


def _artifact(file: MirroredFile, index: int, *, root: Path) -> Artifact:
    """The artifact by which the agent downloads `file`: its digest may be in a list that is in the folder already."""
    sums = (root / file.sums).as_uri() if file.sums else None
    return replace(as_file(file.artifact, dest=root / file.path), name=_name(index), digest_url=sums)


def _name(index: int) -> str:
    return f"file-{index}"  # several files may be of one artifact


def _failures(files: Sequence[MirroredFile], ended: agent_downloads.Downloads) -> Iterator[Problem]:
    for index, file in enumerate(files):
        if ended.artifacts.get(_name(index), {}).get("phase") not in IN_PLACE:
            urls = " or ".join(map(redact, file.artifact.urls))
            yield Problem(
                reference=FAILED,
                message=f"cannot download {file.title} from {urls}: {ended.why(_name(index))}",
                hint="what is there stays: run it again when the server has the file",
            )
