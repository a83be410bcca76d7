"""Locks artifacts, and checks that what is locked is still what the mirrors have: what `pxe-pack lock` does."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pxe_fetch.contract.model import Artifact, FetchConfig
from pxe_fetch.contract.problem import Problem, ProblemError, show
from pxe_pack.config import read
from pxe_pack.config_file import read_text
from pxe_pack.console import Console
from pxe_pack.lock.download import Answer, Downloads, Wanted, download_all, wanted
from pxe_pack.lock.lockfile import Lock, Locked, misfit, read_lock, written
from pxe_pack.output import parent_problem, staging_folder
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, WorkError, command_line

CHANGED = "lock-changed"
OUTDATED = frozenset({CHANGED, "lock-stale"})  # references that make `lock --check` exit with 3
_WORDS = ("added", "changed", "kept", "removed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A configuration and its lock file."""

    fetch: FetchConfig
    unpinned: dict[str, tuple[Artifact, tuple[str, ...]]]  # by name: those without a digest, and their whole URLs
    lock: Lock

    def fits(self, name: str) -> bool:
        """Whether the lock file has an entry for the artifact as it is now."""
        artifact, urls = self.unpinned[name]
        return name in self.lock.entries and not misfit(self.lock.entries[name], artifact, urls)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What `lock` did to the lock file: names of artifacts."""

    path: Path
    entries: tuple[Locked, ...]
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def read_subject(config: Path) -> Subject:
    """Read the configuration, in which digests may be missing, and its lock file. Raises InputError."""
    unpinned: dict[str, tuple[Artifact, tuple[str, ...]]] = {}

    def collect(artifact: Artifact, urls: tuple[str, ...]) -> Artifact:
        unpinned[artifact.name] = artifact, urls
        return artifact

    try:
        document = read(read_text(config), name=str(config), pin=collect)
    except ProblemError as error:
        raise InputError(*error.problems) from error
    return Subject(fetch=document.fetch, unpinned=unpinned, lock=read_lock(config))


def lock(config: Path, *, upgrade: Collection[str], console: Console) -> Change:
    """Lock the artifacts of `config` that have no digest and no entry that fits, and those named in `upgrade`.

    Raises InputError, and WorkError if a mirror cannot be read or two of them differ; the lock file is then unchanged.
    """
    subject = read_subject(config)
    entries = subject.lock.entries
    if unknown := sorted(set(upgrade) - subject.unpinned.keys()):
        message = f"{config} has no artifact {unknown[0]} without a digest, so there is nothing to upgrade"
        hint = f"those without one: {', '.join(subject.unpinned) or 'none'}"
        raise InputError(Problem(reference="lock-unknown", message=message, hint=hint))
    items = wanted(given for name, given in subject.unpinned.items() if name in upgrade or not subject.fits(name))
    new = {item.artifact.name: one for item, one in zip(items, _locked(subject, items, console), strict=True)}
    change = Change(
        path=subject.lock.path,
        entries=tuple(new.get(name) or entries[name] for name in subject.unpinned),
        removed=[name for name in entries if name not in subject.unpinned],
    )
    for name in subject.unpinned:
        before, after = entries.get(name), new.get(name)
        kind = change.kept if after in {None, before} else change.added if before is None else change.changed
        kind.append(name)
    _write(subject.lock, change.entries)
    return change


def _locked(subject: Subject, items: Sequence[Wanted], console: Console) -> Iterator[Locked]:
    """The new entries of `items`; one that would say the same as the old one stays as it is. Raises WorkError."""
    found = _download(subject, items, console)
    problems = list(found.problems)
    for item in items:
        problems += _differences(item.artifact.name, found.answers[item.artifact.name])
    if problems:
        raise WorkError(*problems)
    if remarks := [_remark(name, one) for name, several in found.answers.items() for one in several if one.remark]:
        console.problems(remarks)
    now = _now()
    for item in items:
        answers = found.answers[item.artifact.name]
        urls = [one.url for one in answers]
        finals = tuple(one.final_url for one in answers)
        first = answers[0]
        new = Locked(
            name=item.artifact.name,
            urls=item.written_urls,
            title=item.artifact.title,
            manifest=answers[0].manifest,
            final_urls=() if list(finals) == urls else finals,
            time=now,
            size=first.size,
            sha256=first.sha256,
            chunks=first.chunks,
        )
        _check_size(item.artifact, new)
        old = subject.lock.entries.get(new.name)
        yield old if old and replace(old, time=now) == new else new


def _download(subject: Subject, items: Sequence[Wanted], console: Console) -> Downloads:
    if not items:
        return Downloads(answers={}, problems=())
    if problem := parent_problem(subject.lock.path.absolute()):
        raise InputError(problem)
    with staging_folder(real_path(subject.lock.path)) as work:
        return download_all(subject.fetch, items, work=work, console=console)


def _now() -> str:
    """The time of new entries: SOURCE_DATE_EPOCH if set, else now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), tz=UTC) if epoch.isdecimal() else datetime.now(tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_size(artifact: Artifact, new: Locked) -> None:
    if artifact.size not in {None, new.size}:
        message = f"the artifact {artifact.name} has `size: {artifact.size}`, but its mirrors have {new.size} bytes"
        hint = "leave the size out; the lock file has it"
        raise WorkError(Problem(reference="lock-size", message=message, hint=hint))


def _differences(name: str, answers: Sequence[Answer]) -> Iterator[Problem]:
    """A problem for each mirror that has other bytes than the first."""
    for other in answers[1:]:
        first = answers[0]
        if (first.sha256, first.manifest) != (other.sha256, other.manifest):
            yield Problem(
                reference="lock-mirrors-differ",
                message=f"the mirrors of {name} have different bytes: {_what(first)}, but {_what(other)}",
                hint="synchronise the mirrors, or remove the one that is wrong",
            )


def _what(answer: Answer) -> str:
    remark = f", {answer.remark}" if answer.remark else ""
    manifest = f", in the manifest sha256:{answer.manifest}" if answer.manifest else ""
    return f"{answer.url} has {answer.size:,} bytes with sha256 {answer.sha256}{manifest}{remark}"


def _remark(name: str, answer: Answer) -> Problem:
    return Problem(
        reference="lock-remark",
        message=f"{name} was locked as {answer.url} sent it, but it was {answer.remark}",
        hint="look at what is at that URL",
        severity="warning",
    )


def _write(before: Lock, entries: Sequence[Locked]) -> None:
    """Replace the lock file, unless it would say the same, or is not needed and does not exist. Raises InputError."""
    if not entries and not before.exists:
        return
    try:
        text = written(entries)
    except ProblemError as error:
        raise InputError(*error.problems) from error
    target = real_path(before.path)
    if not before.exists or target.read_text(encoding="utf-8") != text:
        with staging_folder(target) as work:
            (work / "new").write_text(text, encoding="utf-8")
            (work / "new").replace(target)


def summary(change: Change) -> str:
    """What was done, as text."""
    entries = {entry.name: entry for entry in change.entries}
    lines = [
        f"  {word:9}{name}{_size_and_digest(entries.get(name))}" for word in _WORDS for name in getattr(change, word)
    ]
    return "\n".join([str(change.path), *lines]) if lines else "Every artifact has a digest; there is nothing to lock."


def _size_and_digest(entry: Locked | None) -> str:
    return f"  {entry.size:,} bytes, sha256 {entry.sha256}" if entry else ""


def document(change: Change) -> dict[str, object]:
    """What was done, as JSON values (docs/json.md)."""
    return {"lock": str(change.path), **{word: getattr(change, word) for word in _WORDS}}


def check(config: Path, *, console: Console) -> list[Problem]:
    """Compare what every mirror has now with the lock file, and the lock file with the configuration.

    Returns the differences, with one of the references OUTDATED, and a problem for each mirror that cannot
    be read. Writes nothing. Raises InputError.
    """
    subject = read_subject(config)
    problems = [*subject.lock.unneeded(subject.unpinned, subject.fetch)]
    problems += [_unlocked(subject, name) for name in subject.unpinned if not subject.fits(name)]
    items = wanted(given for name, given in subject.unpinned.items() if subject.fits(name))
    found = _download(subject, items, console)
    for name, answers in found.answers.items():
        locked = subject.lock.entries[name]
        problems += [_changed(subject, locked, one) for one in answers if one.sha256 != locked.sha256]
    return [*problems, *found.problems]


def _unlocked(subject: Subject, name: str) -> Problem:
    artifact, urls = subject.unpinned[name]
    path, entry = subject.lock.path, subject.lock.entries.get(name)
    reason = f"{misfit(entry, artifact, urls)} in" if entry else "has no digest, and no entry in"
    hint = f"`{command_line('pxe-pack', 'lock', subject.lock.config)}` downloads it"
    return Problem(reference="lock-stale", message=f"the artifact {name} {reason} {path}", hint=hint)


def _changed(subject: Subject, locked: Locked, answer: Answer) -> Problem:
    upgrade = command_line("pxe-pack", "lock", "--upgrade", locked.name, subject.lock.config)
    return Problem(
        reference=CHANGED,
        message=f"{locked.name} has changed: {_what(answer)}, but {locked.size:,} bytes with sha256 {locked.sha256} "
        f"were locked on {locked.time}",
        hint=f"`{upgrade}` takes what is there now",
    )


def findings_document(config: Path, problems: Sequence[Problem]) -> dict[str, object]:
    """The findings as JSON values (docs/json.md)."""
    return {"config": str(config), "findings": [problem.as_document() for problem in problems]}


def findings_text(config: Path, problems: Sequence[Problem]) -> str:
    """The findings as text."""
    last = f"{config}: {len(problems)} {'problems' if len(problems) > 1 else 'problem'}"
    return "\n\n".join([*map(show, problems), last if problems else f"{config}: the lock file is up to date"])
