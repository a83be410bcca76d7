"""Downloads artifacts from each of their mirrors, by the agent: as a node would, but without a digest."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pxe_fetch.contract import facts, quantity, registry
from pxe_fetch.contract.chunks import LARGEST, fitting
from pxe_fetch.contract.model import Artifact, Chunks, FetchConfig, When
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import is_absolute, redact
from pxe_pack import agent_downloads
from pxe_pack.agent_downloads import IN_PLACE, as_file, download
from pxe_pack.chunks import CHUNKED_FROM, DEFAULT_SIZE, ChunkDigests
from pxe_pack.console import Console
from pxe_pack.hashing import BLOCK, hash_file
from pxe_pack.tools import InputError

MOST_CHUNKS = 128  # of an artifact: each has a line in the lock file, and in the configuration on the node
FAILED = "lock-download"  # reference of a problem
_GLOB = frozenset("*?[")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """An artifact to download from all of its mirrors."""

    artifact: Artifact
    written_urls: tuple[str, ...]  # joined to `base_url`, with ${facts}
    urls: tuple[str, ...]  # with the facts filled in


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one mirror had."""

    url: str  # redacted
    size: int  # bytes
    sha256: str
    final_url: str  # redacted; where redirects led to, else `url`
    remark: str  # what is odd about it; may be empty
    manifest: str | None = None  # SHA-256, in hexadecimal; of a registry
    chunks: Chunks | None = None  # None if it is small, or was not the first mirror, or a registry has it


@dataclass(frozen=True, kw_only=True, slots=True)
class Downloads:
    """What the mirrors had, by artifact in the order of its URLs, and a problem for each that could not be read."""

    answers: Mapping[str, Sequence[Answer]]
    problems: Sequence[Problem]


def wanted(artifacts: Iterable[tuple[Artifact, tuple[str, ...]]]) -> list[Wanted]:
    """The artifacts to download, each given with its URLs joined to `base_url`. Raises InputError with all problems.

    The URLs of an artifact may have those ${facts} for which its `when` has a single value: others would make it
    several files, which cannot have one digest.
    """
    found, problems = [], []
    for artifact, urls in artifacts:
        names = {name for text in (*urls, *artifact.headers.values()) for name in facts.references(text)}
        values = {name: _only_value(artifact.when, name) for name in names}
        if lacking := sorted(name for name, value in values.items() if not value):
            problems.append(_several_files(artifact.name, lacking[0]))
        elif relative := [url for url in urls if not is_absolute(url)]:
            message = f"the artifact {artifact.name} cannot be locked: its url `{relative[0]}` is relative"
            hint = "give defaults.base_url, or the whole URL"
            problems.append(Problem(reference="lock-relative", message=message, hint=hint))
        filled = tuple(facts.fill_url(url, values.__getitem__) for url in urls)
        headers = {key: facts.fill(text, values.__getitem__) for key, text in artifact.headers.items()}
        found.append(Wanted(artifact=replace(artifact, headers=headers), written_urls=urls, urls=filled))
    if problems:
        raise InputError(*problems)
    return found


def _only_value(when: When, fact: str) -> str:
    """The one value of `fact` on the nodes that `when` selects; empty if there may be several."""
    argument = facts.argument(fact.removeprefix(facts.CMDLINE))
    globs = when.cmdline.get(argument, ()) if fact.startswith(facts.CMDLINE) else when.facts.get(fact, ())
    return globs[0] if len(globs) == 1 and _GLOB.isdisjoint(globs[0]) else ""


def _several_files(name: str, fact: str) -> Problem:
    is_argument = fact.startswith(facts.CMDLINE)
    example = f"cmdline: {{{fact.removeprefix(facts.CMDLINE)}: VALUE}}" if is_argument else f"{fact}: VALUE"
    return Problem(
        reference="lock-facts",
        message=f"the artifact {name} cannot be locked: it uses ${{{fact}}}, so each node may fetch another file, and "
        "one digest cannot be that of all",
        hint=f"write an artifact for each value, with `when: {{{example}}}`; or give `sha256_url`",
    )


def download_all(config: FetchConfig, items: Sequence[Wanted], *, work: Path, console: Console) -> Downloads:
    """Download `items` from every mirror into `work`, one mirror of each at a time, and remove the files again."""
    answers: dict[str, list[Answer]] = {item.artifact.name: [] for item in items}
    problems: list[Problem] = []
    for index in range(max((len(item.urls) for item in items), default=0)):
        turn = [item for item in items if len(item.urls) > index]
        which = f"mirror {index + 1} of " if any(len(item.urls) > 1 for item in items) else ""
        title = f"Downloading {which}{', '.join(item.artifact.name for item in turn[:3])}{', …' if turn[3:] else ''}"
        folder = work / f"mirror-{index + 1}"
        folder.mkdir()
        with console.step(title) as step:
            artifacts = tuple(_at(item, index=index, folder=folder) for item in turn)
            ended = download(config, artifacts, root=folder, work=folder, reference=FAILED, step=step)
            failed = []
            for item in turn:
                found = _answer(item, ended, index=index, folder=folder)
                if isinstance(found, Answer):
                    answers[item.artifact.name].append(found)
                else:
                    failed.append(found)
            problems += failed
            of = f"{len(turn) - len(failed)} of " if failed else ""
            step.note(f"{of}{quantity.count(len(turn), 'file')}, {quantity.amount(ended.received)}")
        shutil.rmtree(folder)
    return Downloads(answers=answers, problems=problems)


def _at(item: Wanted, *, index: int, folder: Path) -> Artifact:
    """The artifact to download from its mirror number `index`, whose size the mirrors say."""
    artifact = replace(item.artifact, mirrors=((item.urls[index],),), tiers={}, size=None)
    return as_file(artifact, dest=_place(folder, item))


def _place(folder: Path, item: Wanted) -> Path:
    return folder / "files" / item.artifact.name


def _answer(item: Wanted, ended: agent_downloads.Downloads, *, index: int, folder: Path) -> Answer | Problem:
    """What the mirror number `index` had, or why it could not be read."""
    name, is_layer = item.artifact.name, item.artifact.title is not None
    url = redact(item.urls[index])
    url = registry.written(url) if is_layer else url
    found = ended.artifacts.get(name, {})
    if found.get("phase") not in IN_PLACE:
        return Problem(
            reference=FAILED,
            message=f"cannot download {name} from {url}: {ended.why(name)}",
            hint="every mirror must have the file when it is locked",
        )
    path = _place(folder, item)
    size = path.stat().st_size
    return Answer(
        url=url,
        size=size,
        sha256=str(found["sha256"] or hash_file(path).sha256),  # by a list of chunks it is not computed
        final_url=url if is_layer else str(found.get("final_url") or url),
        remark=str(found.get("remark") or ""),
        manifest=str(found["oci"]).rpartition("@sha256:")[2] if is_layer else None,
        chunks=None if index or is_layer else _chunks(path, size),
    )


def _chunks(path: Path, size: int) -> Chunks | None:
    """The chunk digests of a file of `size` bytes: at most MOST_CHUNKS; None if it is small, or too large for that."""
    chunk = fitting(size, least=DEFAULT_SIZE, most=MOST_CHUNKS)
    if size < CHUNKED_FROM or chunk > LARGEST:
        return None
    digests = ChunkDigests(chunk)
    with path.open("rb", buffering=0) as file:
        while data := file.read(BLOCK):
            digests.update(data)
    return Chunks(size=chunk, digests=digests.finish())
