"""Downloads artifacts from each of their mirrors, by the agent: as a node would, but without a digest.

The agent is a child process: it takes a configuration made for it, and its state file says how each download is going
and what it had in the end.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from pxe_fetch.contract import facts, quantity, registry
from pxe_fetch.contract.chunks import LARGEST, fitting
from pxe_fetch.contract.model import Artifact, Chunks, FetchConfig, Report, When
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import is_absolute, redact
from pxe_pack import dump, tools
from pxe_pack.chunks import CHUNKED_FROM, DEFAULT_SIZE, ChunkDigests
from pxe_pack.console import Console, Step
from pxe_pack.hashing import BLOCK, hash_file
from pxe_pack.tools import InputError, WorkError

MOST_CHUNKS = 128  # of an artifact: each has a line in the lock file, and in the configuration on the node
_POLL = 0.2  # seconds; the agent saves its state four times a second
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
        quoted = {name: quote(value, safe=":@") for name, value in values.items()}  # as the agent fills them in
        filled = tuple(facts.fill(url, quoted.__getitem__) for url in urls)
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
            state = _fetch(_config(config, turn, index=index, folder=folder), folder=folder, step=step)
            failed = []
            for item in turn:
                found = _answer(item, state, index=index, folder=folder)
                if isinstance(found, Answer):
                    answers[item.artifact.name].append(found)
                else:
                    failed.append(found)
            problems += failed
            of = f"{len(turn) - len(failed)} of " if failed else ""
            step.note(f"{of}{quantity.count(len(turn), 'file')}, {quantity.amount(_received(state))}")
        shutil.rmtree(folder)
    return Downloads(answers=answers, problems=problems)


def _config(config: FetchConfig, turn: Sequence[Wanted], *, index: int, folder: Path) -> str:
    """The configuration by which the agent downloads the mirrors number `index` to `folder`."""
    artifacts = tuple(
        replace(
            item.artifact,
            urls=(item.urls[index],),
            dest=str(folder / "files" / item.artifact.name),
            size=None,  # the mirrors say it
            mode=None,
            owner=None,
            group=None,
            extract=None,
            when=When(),
            start=(),
            start_required=False,
            required=True,
        )
        for item in turn
    )
    return dump.dump(
        replace(
            config,
            artifacts=artifacts,
            base_url=None,
            artifact_url=None,
            allowed_roots=(str(folder),),
            live_space=None,
            start_jitter=0.0,
            report=Report(),
            on_failure="continue",
        )
    )


def _fetch(config: str, *, folder: Path, step: Step) -> Mapping[str, object]:
    """Run the agent with `config` until it has ended; its state then. Reports its progress to `step`.

    Raises WorkError if it could not begin.
    """
    file, run = folder / "fetch.yaml", folder / "state"
    file.write_text(config, encoding="utf-8")
    run.mkdir()
    # Not as a service, whatever runs pxe-pack; with a state file of its own, also for root.
    environment = {"RUNTIME_DIRECTORY": str(run), "NOTIFY_SOCKET": "", "INVOCATION_ID": "", "JOURNAL_STREAM": ""}
    done = 0
    with (folder / "log").open("wb") as log:
        command = (sys.executable, "-P", "-m", "pxe_fetch", "run", "--unpinned", "--config", file)
        with tools.start(*command, stdout=log, stderr=log, env=environment, cwd=folder) as process:
            while process.poll() is None:
                time.sleep(_POLL)
                if (received := _received(_state(run))) > done:  # a download that starts over has fewer
                    step.advance(received - done)
                    done = received
    state = _state(run)
    if not state.get("final"):
        said = (folder / "log").read_bytes()
        tools.check("pxe-fetch", process.returncode or 1, said)
    if not _artifacts(state):  # it did not get as far as the first download
        message = f"the agent downloads nothing: {state.get('message')}"
        hint = "credentials are read from $CREDENTIALS_DIRECTORY, and the paths in `tls` are those of this machine"
        raise WorkError(Problem(reference="lock-download", message=message, hint=hint))
    step.advance(max(_received(state) - done, 0))
    return state


def _state(run: Path) -> Mapping[str, object]:
    """The state that the agent has saved; empty if there is none yet."""
    with suppress(OSError, ValueError):
        state = json.loads((run / "state.json").read_bytes())
        return state if isinstance(state, dict) else {}
    return {}


def _artifacts(state: Mapping[str, object]) -> dict[str, dict[str, object]]:
    listed = state.get("artifacts")
    return {str(one["name"]): one for one in listed} if isinstance(listed, list) else {}


def _received(state: Mapping[str, object]) -> int:
    """The bytes of all files that are here."""
    return sum(number for one in _artifacts(state).values() if isinstance(number := one.get("bytes"), int))


def _answer(item: Wanted, state: Mapping[str, object], *, index: int, folder: Path) -> Answer | Problem:
    """What the mirror number `index` had, or why it could not be read."""
    name, is_layer = item.artifact.name, item.artifact.title is not None
    url = redact(item.urls[index])
    url = registry.written(url) if is_layer else url
    found = _artifacts(state).get(name, {})
    if found.get("phase") != "placed":
        return Problem(
            reference="lock-download",
            message=f"cannot download {name} from {url}: {found.get('error') or state.get('message')}",
            hint="every mirror must have the file when it is locked",
        )
    path = folder / "files" / name
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
