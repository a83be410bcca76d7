"""Reads and writes `fetch.lock`. Everything in it is checked: it may have been edited, or merged badly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from pxe_fetch.contract import checks, keys, registry, validators
from pxe_fetch.contract.chunks import listed
from pxe_fetch.contract.document import MAX_CHARACTERS, Section
from pxe_fetch.contract.keys import Group, Key, Size, Text, Texts, Whole, key, spelled
from pxe_fetch.contract.model import Artifact, Chunks, Digest, FetchConfig
from pxe_fetch.contract.problem import Position, Problem, ProblemError, RuleError
from pxe_fetch.contract.quantity import show_size
from pxe_fetch.contract.reader import Reader, load_root
from pxe_fetch.contract.url import each
from pxe_pack.input_file import read_input
from pxe_pack.tools import InputError, command_line

SUFFIX = ".lock"
_CONFLICT = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)  # git-merge(1), "How conflicts are presented"
VERSION = 1

_ONE_URL = Text(validators.url, load=lambda url: (url,))
_time = validators.Matching(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "is not a time",
    reference="time-invalid",
    label="in UTC, as 2026-11-30T12:00:00Z",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """What one artifact was when it was locked."""

    name: str = key("", Text(validators.name), "The artifact.", missing="name-missing")
    urls: tuple[str, ...] = spelled(
        Key(_ONE_URL, "Where its bytes were downloaded from: with `base_url`, and with its ${facts}.", name="url"),
        Key(Texts(validators.url), "Instead of `url`: the mirrors, all of which had the same bytes.", name="urls"),
        Key(Texts(registry.manifest_url, or_one=True), "Instead of `url`: in a registry, by a tag.", name="oci"),
        default=(),
    )
    title: str | None = key(None, Text(validators.any_text), "With `oci`: of the layer.")
    manifest: str | None = key(
        None, Text(validators.DigestOf("sha256", 64)), "With `oci`: the digest of the manifest, which nodes get."
    )
    final_urls: tuple[str, ...] = key(
        (), Texts(validators.url), "Where redirects led to, for each mirror; without queries. Left out without any."
    )
    time: str = key("", Text(_time), "When it was locked.", missing="time-missing")
    size: int = key(0, Size(), "Bytes on the wire.", missing="size-missing")
    sha256: str = key("", Text(validators.DigestOf("sha256", 64)), "Of the whole.", missing="checksum-missing")
    chunks: Chunks | None = key(None, Group("chunks"), "Digests of its chunks, for large files.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """The keys at the top of the file."""

    version: int = key(VERSION, Whole(VERSION, VERSION), "The version of this format.", missing="version-missing")
    artifacts: tuple[Locked, ...] = key((), Group("artifacts", many=True), "In the order of their names.")


_SECTIONS = keys.sections({"": _File, "artifacts": Locked, "chunks": Chunks})


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """The content of a lock file; of one that does not exist, nothing."""

    path: Path
    config: Path
    entries: Mapping[str, Locked] = field(default_factory=dict)  # by name, in the order of the file
    places: Mapping[str, Position] = field(default_factory=dict)  # of the entries, by name
    exists: bool = False

    def pin(self, artifact: Artifact, urls: tuple[str, ...]) -> Artifact:
        """`artifact`, which has no digest, with that of its entry. Raises RuleError if no entry fits."""
        locked = self.entries.get(artifact.name)
        if locked is None:
            return checks.unpinned(artifact, urls)
        if reason := misfit(locked, artifact, urls):
            hint = f"`{command_line('pxe-pack', 'lock', self.config)}` downloads it again"
            raise RuleError(f"{reason} in {self.path}", reference="lock-stale", hint=hint)
        if locked.manifest:
            pinned = each(artifact.mirrors, lambda url: registry.with_digest(url, f"sha256:{locked.manifest}"))
            return replace(artifact, size=locked.size, mirrors=pinned)
        if locked.chunks:  # as of a `source`: a node that had both would read the file twice
            return replace(artifact, size=locked.size, chunks=locked.chunks)
        return replace(artifact, size=locked.size, digest=Digest(algorithm="sha256", hex=locked.sha256))

    def unneeded(self, unpinned: Iterable[str], config: FetchConfig) -> Iterator[Problem]:
        """A problem for each entry of an artifact that is not one of the `unpinned`, those without a digest."""
        names, needed = {artifact.name for artifact in config.artifacts}, set(unpinned)
        for name in self.entries:
            if name not in needed:
                has = "has a digest of its own, or a source" if name in names else "is gone"
                yield Problem(
                    reference="lock-stale",
                    message=f"{self.path} has an entry for the artifact {name}, which {has} in {self.config}",
                    where=self.places.get(name),
                    hint=f"`{command_line('pxe-pack', 'lock', self.config)}` removes the entry",
                )


def misfit(locked: Locked, artifact: Artifact, urls: tuple[str, ...]) -> str:
    """What `artifact` has that `locked` was not made for; empty if it fits. The order of mirrors does not matter."""
    if (set(locked.urls), locked.title) != (set(urls), artifact.title):
        return "has other URLs than"
    if artifact.size not in {None, locked.size}:
        return f"has `size: {artifact.size}`, but {locked.size} bytes"
    return ""


def lock_path(config: Path) -> Path:
    """The lock file of the configuration `config`: `fetch.lock` beside `fetch.yaml`."""
    return config.parent / f"{config.stem}{SUFFIX}"  # also of `.`, which is refused when it is read


def read_lock(config: Path) -> Lock:
    """The lock file of the configuration. Raises InputError with every problem found."""
    path = lock_path(config)
    hint = f"`{command_line('pxe-pack', 'lock', config)}` writes it again if you remove it"
    try:
        # a character has 4 bytes at most; `load` counts them
        text = read_input(path, limit=4 * MAX_CHARACTERS + 1).decode()
    except FileNotFoundError:
        return Lock(path=path, config=config)
    except OSError as error:
        message = f"cannot read the lock file {path}: {error.strerror}"
        raise InputError(Problem(reference="lock-unreadable", message=message)) from error
    except UnicodeDecodeError as error:
        message = f"the lock file {path} is not UTF-8 text (byte {error.start})"
        raise InputError(Problem(reference="lock-unreadable", message=message, hint=hint)) from error
    if mark := _CONFLICT.search(text):
        message = f"{path}:{text.count(chr(10), 0, mark.start()) + 1} has the mark of a merge conflict"
        hint = f"take one side of it, or remove the file; then `{command_line('pxe-pack', 'lock', config)}`"
        raise InputError(Problem(reference="lock-conflict", message=message, hint=hint))
    try:
        entries, places = _read(text, name=str(path))
    except ProblemError as error:
        raise InputError(*(replace(one, hint=one.hint or hint) for one in error.problems)) from error
    return Lock(path=path, config=config, entries=entries, places=places, exists=True)


def _read(text: str, *, name: str) -> tuple[Mapping[str, Locked], Mapping[str, Position]]:
    """The entries in the text of a lock file called `name`, and where they are. Raises ProblemError."""
    root, reader = load_root(text, name=name), Reader(_SECTIONS)
    entries: dict[str, Locked] = {}
    places: dict[str, Position] = {}
    for section in reader.values(root, "", {}).get("artifacts", []):
        values = {"name": section.path, **reader.values(section, "artifacts", {})}
        locked = Locked(**values)
        _check(section, locked)
        if locked.name in entries:
            section.add("name-taken", f"the name `{locked.name}` is taken by an earlier entry", at="name")
        entries[locked.name] = locked
        places[locked.name] = root.problems.position(section.spot)
    root.problems.check()
    return entries, places


def _check(section: Section, locked: Locked) -> None:
    """Add what is wrong with several values of an entry to its section."""
    given = [each for each in ("url", "urls", "oci") if section.has(each)]
    if len(given) != 1 or not locked.urls:
        section.add("source-unclear", f"{section.path} needs exactly one of url, urls, oci")
    if any(section.has(each) != section.has("oci") for each in ("title", "manifest")):
        section.add("source-unclear", f"{section.path} needs all or none of oci, title, manifest")
    if locked.final_urls and len(locked.final_urls) != len(locked.urls):
        message = f"has {len(locked.final_urls)} URLs, but the artifact has {len(locked.urls)}"
        section.refuse("final_urls", message, reference="source-unclear")
    if locked.chunks:
        checks.chunks(section, locked.chunks, size=locked.size)


def written(entries: Iterable[Locked]) -> str:
    """The text of a lock file: always the same for the same entries, a value a line, in the order of their names.

    Raises ProblemError if it would be too large to be read.
    """
    blocks = [_block(locked) for locked in sorted(entries, key=lambda one: one.name)]
    text = f"{_HEADER}version: {VERSION}\nartifacts:{'' if blocks else ' []'}\n" + "\n".join(blocks)
    _read(text, name="the new lock file")
    return text


def _block(locked: Locked) -> str:
    urls, key = locked.urls, "url"
    if locked.manifest:
        urls, key = tuple(map(registry.written, urls)), "oci"
    elif len(urls) > 1:
        key = "urls"
    document: dict[str, object] = {
        "name": locked.name,
        key: urls[0] if len(urls) == 1 else list(urls),
        **({"title": locked.title, "manifest": locked.manifest} if locked.manifest else {}),
        **({"final_urls": list(locked.final_urls)} if locked.final_urls else {}),
        "time": locked.time,
        "size": locked.size,
        "sha256": locked.sha256,
    }
    if locked.chunks:
        digests = listed(locked.chunks.digests).split()
        document["chunks"] = {"size": show_size(locked.chunks.size), "sha256": digests}
    return yaml.safe_dump([document], sort_keys=False, allow_unicode=True, width=10_000)


_HEADER = """\
# What the artifacts without a digest in the configuration beside this file were when they were locked.
# Written by `pxe-pack lock`; keep it in version control, and do not edit it.
"""
