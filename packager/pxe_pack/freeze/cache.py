"""The frozen agent, from the cache when it is there and whole, frozen anew when not.

    <cache>/lock                        held by whoever freezes
    <cache>/<key>/pxe-fetch/            the agent
    <cache>/<key>/libraries.json        the digests of the system's libraries that were copied into it
    <cache>/new-…/                      a freeze under way

The key is a digest of all that decides what comes out. An entry comes into being by a rename, whole, and is never
changed afterwards.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pxe_fetch
from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import held, temporary_folder
from pxe_pack.console import Console
from pxe_pack.freeze import recipe
from pxe_pack.freeze.agent import PROGRAM, FrozenAgent, load_agent
from pxe_pack.freeze.needs import freeze_problems
from pxe_pack.tools import InputError, WorkError

SOURCES = Path(pxe_fetch.__file__).parent

Maker = Callable[[Path], recipe.Frozen]
"""Freezes inside the folder it is given."""

# Entries beyond these, the most lately used ones, go when no one has used them for an hour: an edit of the agent makes
# an entry of some 15 MB.
_KEPT_ENTRIES = 4
_UNUSED_SECONDS = 3600


def default_cache() -> Path:
    """Where frozen agents are kept for this user (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pxe-pack" / "agent"


def frozen_agent(*, cache: Path, console: Console) -> FrozenAgent:
    """The agent of this installation, frozen with the Python that runs us.

    Raises InputError when a tool is missing, WorkError when freezing failed; the cache is then as it was.
    """
    key = cache_key(SOURCES)

    def make(work: Path) -> recipe.Frozen:
        if problems := freeze_problems():
            raise InputError(*problems)
        sources = work / "sources" / SOURCES.name
        shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
        if cache_key(sources) != key:  # else the entry would never be what its key says
            raise WorkError(
                Problem(
                    reference="agent-sources-changed",
                    message=f"{SOURCES} changed while the agent was being frozen",
                    hint="run it again",
                )
            )
        return recipe.freeze(sources, version=pxe_fetch.__version__, work=work)

    return cached(key, cache=cache, make=make, console=console)


def cached_agent(*, cache: Path, console: Console) -> FrozenAgent | None:
    """The agent of this installation, where `cache` has it whole; None where it would have to be frozen."""
    return _usable(cache.resolve() / cache_key(SOURCES), console=console)


def is_cached(*, cache: Path) -> bool:
    """Whether `frozen_agent` would find an entry, and so needs no tools. Does not check that it is whole."""
    return (cache / cache_key(SOURCES) / PROGRAM).is_dir()


def cached(key: str, *, cache: Path, make: Maker, console: Console) -> FrozenAgent:
    """The agent that `cache` has under `key`, whole; `make` is asked for it where there is none or a damaged one.

    Raises what `make` raises.
    """
    cache = cache.resolve()
    entry = cache / key
    agent = _usable(entry, console=console)
    if agent is None:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache, console=console):
            # Another process may have made it while we waited.
            agent = _usable(entry, console=console) or _make(entry, make=make, console=console)
    os.utime(entry)  # the time of the last use
    _prune(cache, keep=entry)
    return agent


def cache_key(sources: Path) -> str:
    """A digest of all that decides what the frozen agent is, but for the system's libraries."""
    digest = hashlib.sha256()
    for root in (sources, recipe.HERE):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    for fact in (sys.version, sys.base_prefix, platform.machine()):
        digest.update(f"{fact}\0".encode())
    return digest.hexdigest()[:32]


def _usable(entry: Path, *, console: Console) -> FrozenAgent | None:
    """The agent in `entry`, None when it has to be frozen (again)."""
    if not entry.is_dir():
        return None
    try:
        agent = load_agent(entry / PROGRAM)
        libraries: dict[str, str] = json.loads((entry / "libraries.json").read_bytes())
        changed = [name for name, digest in libraries.items() if _digest(Path(name)) != digest]
    except (InputError, OSError, ValueError, AttributeError):
        console.say(f"the frozen agent in {entry} is damaged")
        return None
    if changed:
        console.say(f"{changed[0]} was updated since the agent was frozen")
        return None
    return agent


def _make(entry: Path, *, make: Maker, console: Console) -> FrozenAgent:
    """Freeze into `entry`. The caller holds the lock, so whatever is left of earlier attempts is no one's."""
    cache = entry.parent
    for leftover in cache.glob("new-*"):
        shutil.rmtree(leftover)
    with temporary_folder(prefix="new-", parent=cache) as folder, console.step("Freezing the agent, once") as step:
        new = folder / "entry"
        new.mkdir(mode=0o755)
        frozen = make(folder)
        frozen.tree.rename(new / PROGRAM)
        libraries = {str(path): _digest(path) for path in frozen.libraries}
        (new / "libraries.json").write_text(json.dumps(libraries, indent=1) + "\n")
        with held():
            if entry.exists():  # damaged or stale
                entry.rename(folder / "old")
            new.rename(entry)
        agent = load_agent(entry / PROGRAM)
        step.note(f"{agent.size / 1e6:.1f} MB, for {agent.machine} with glibc {agent.glibc} or newer")
        return agent


@contextmanager
def _locked(cache: Path, *, console: Console) -> Iterator[None]:
    """Hold the cache's lock; the kernel lets go of it when we die."""
    with (cache / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say("another pxe-pack is freezing the agent: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prune(cache: Path, *, keep: Path) -> None:
    """Remove entries that no one has used for long. Best effort: a pack is never failed for it."""
    with suppress(OSError):
        entries = [path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("new-")]
        by_use = sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)
        for entry in by_use[_KEPT_ENTRIES:]:
            if entry != keep and entry.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                shutil.rmtree(entry)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
