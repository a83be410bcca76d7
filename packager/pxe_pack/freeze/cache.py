"""The frozen agent, from the cache when it is there and whole; else unpacked from a release's archive, or frozen anew.

    <cache>/lock                        locked while an entry is made
    <cache>/<key>/pxe-fetch/            an agent, frozen here
    <cache>/ready-<key>/pxe-fetch/      an agent, unpacked from an archive that this installation carries
    <cache>/environment-<key>/          what it is frozen in, see environment.py
    <cache>/new-…/                      an entry that is being made

An agent's key is a digest of all that decides what comes out, the environment's packages among it. An entry comes into
being by a rename, whole, and is never changed afterwards.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pxe_fetch
from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import held, temporary_folder
from pxe_pack.console import Console
from pxe_pack.freeze import ready, recipe
from pxe_pack.freeze.agent import PROGRAM, FrozenAgent, load_agent
from pxe_pack.freeze.environment import HERE, SUITE, Environment, environment_name, make_environment, read_environment
from pxe_pack.freeze.machines import THIS_MACHINE, machine_problem
from pxe_pack.freeze.needs import freeze_problems
from pxe_pack.freeze.private_folder import make_private, unsafe_folder
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, WorkError

SOURCES = Path(pxe_fetch.__file__).parent

Maker = Callable[[Path], Path]
"""Freezes inside the folder that it is given; the agent's folder in there."""

_ENVIRONMENT = "environment-"

# Entries beyond these, the most lately used ones, go when no one has used them for an hour: an edit of the agent makes
# an entry of some 20 MB, another version of pxe-pack may make an environment of 0.1 GB.
_KEPT_AGENTS, _KEPT_ENVIRONMENTS = 4, 2
_UNUSED_SECONDS = 3600


def default_cache() -> Path:
    """Where frozen agents are kept for this user (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pxe-pack" / "agent"


def frozen_agent(*, cache: Path, console: Console, machine: str = THIS_MACHINE) -> FrozenAgent:
    """This installation's agent for `machine` (`uname -m`): the ready one that it carries, or one frozen here.

    Raises what `freeze_agent` raises.
    """
    archive = ready_archive(machine)
    if archive is None:
        return freeze_agent(cache=cache, console=console, machine=machine)

    def make(folder: Path) -> Path:
        return ready.unpack(archive, folder)

    return cached(_ready_key(archive), cache=cache, make=make, console=console, title="Unpacking the agent (once)")


def ready_archive(machine: str) -> Path | None:
    """The archive with the agent of just these sources for `machine`; None where there is none."""
    archive = ready.archive_path(machine, key=cache_key(SOURCES, packages=()))
    return archive if archive.is_file() else None


def _ready_key(archive: Path) -> str:
    return f"ready-{archive.name.removesuffix(ready.SUFFIX)}"


def freeze_agent(*, cache: Path, console: Console, machine: str = THIS_MACHINE) -> FrozenAgent:
    """This installation's agent for `machine`, frozen in the environment made for it.

    Raises InputError when it cannot be frozen for `machine`, a tool is missing or others may write to the cache,
    WorkError when freezing failed; the cache is then as it was.
    """
    _refuse_unknown(machine)
    cache = _private(cache)
    environment = _environment(cache, machine=machine, console=console)
    key = cache_key(SOURCES, packages=environment.packages)

    def make(folder: Path) -> Path:
        if problems := freeze_problems(cache, machine=machine):
            raise InputError(*problems)
        if not environment.is_whole:
            raise WorkError(
                Problem(
                    reference="agent-environment-damaged",
                    message=f"the environment that the agent is frozen in is damaged: {environment.folder}",
                    hint="remove that folder, and run this again",
                )
            )
        sources = folder / "sources" / SOURCES.name
        shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
        if cache_key(sources, packages=environment.packages) != key:  # else the entry would never be what its key says
            raise WorkError(
                Problem(
                    reference="agent-sources-changed",
                    message=f"{SOURCES} changed while the agent was being frozen",
                    hint="run it again",
                )
            )
        return recipe.freeze(sources, version=pxe_fetch.__version__, work=folder, environment=environment)

    agent = cached(key, cache=cache, make=make, console=console, title=_freezing_title(machine))
    os.utime(environment.folder)  # the time of the last use
    return agent


def cached_agent(*, cache: Path, console: Console, machine: str = THIS_MACHINE) -> FrozenAgent | None:
    """This installation's agent for `machine`, where `cache` has it whole; None where it would have to be frozen.

    Raises InputError if it cannot be frozen for `machine`, or others may write to the cache.
    """
    _refuse_unknown(machine)
    cache = _private(cache)
    if archive := ready_archive(machine):
        return _usable(cache / _ready_key(archive), console=console)
    environment = read_environment(cache / environment_name(machine))
    if environment is None:
        return None
    return _usable(cache / cache_key(SOURCES, packages=environment.packages), console=console)


def cached(key: str, *, cache: Path, make: Maker, console: Console, title: str) -> FrozenAgent:
    """The agent that `cache` has under `key`, whole; `make` is asked for it where there is none or a damaged one.

    Raises what `make` raises, and InputError if others may write to the cache.
    """
    cache = _private(cache)
    entry = cache / key
    agent = _usable(entry, console=console)
    if agent is None:
        with _locked(cache, console=console):
            # Another process may have made it while we waited.
            agent = _usable(entry, console=console) or _make_agent(entry, make=make, console=console, title=title)
    os.utime(entry)  # the time of the last use
    _prune(cache, keep=entry)
    return agent


def cache_key(sources: Path, *, packages: Sequence[str]) -> str:
    """A digest of all that decides what the frozen agent is; `packages` are the environment's."""
    digest = hashlib.sha256()
    for root in (sources, HERE):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    digest.update("\0".join(packages).encode())
    return digest.hexdigest()[:32]


def _environment(cache: Path, *, machine: str, console: Console) -> Environment:
    """The environment to freeze in; made where `cache` has none, or one so old that it may lack Debian's updates."""
    entry = cache / environment_name(machine)
    known = read_environment(entry)
    if known and known.is_fresh:
        return known
    with _locked(cache, console=console):
        known = read_environment(entry)
        if known and known.is_fresh:  # another process made it while we waited
            return known
        try:
            made = _make_environment(entry, machine=machine, console=console)
        except (InputError, WorkError) as error:
            if known is None:
                raise
            console.say(f"not updated: the environment that the agent is frozen in ({error.problems[0].message})")
            known.postpone()
            return known
    _prune(cache, keep=entry)
    return made


def _make_environment(entry: Path, *, machine: str, console: Console) -> Environment:
    """Make the environment `entry`. The caller holds the lock."""
    if problems := freeze_problems(entry.parent, machine=machine):
        raise InputError(*problems)
    how = "about a minute" if machine == THIS_MACHINE else f"for {machine}, emulated: some minutes"
    title = f"Making the environment that the agent is frozen in (Debian {SUITE}; {how}, once)"
    with _new_folder(entry.parent) as folder, console.step(title) as step:
        _replace(entry, make_environment(folder, machine=machine), aside=folder)
        made = read_environment(entry)
        if made is None:
            raise WorkError(
                Problem(reference="agent-environment-failed", message=f"{entry} is gone", hint="run it again")
            )
        step.note(f"{len(made.packages)} packages")
        return made


def _refuse_unknown(machine: str) -> None:
    if problem := machine_problem(machine):
        raise InputError(problem)


def _freezing_title(machine: str) -> str:
    how = "ten seconds" if machine == THIS_MACHINE else f"for {machine}, emulated: a minute or two"
    return f"Freezing the agent ({how}, once)"


def _private(cache: Path) -> Path:
    """The real path of `cache`. Raises InputError if others may write to it, or to an entry."""
    cache = real_path(cache)
    entries = [path for path in cache.iterdir() if path.is_dir()] if cache.is_dir() else []
    if problem := next(filter(None, map(unsafe_folder, [cache, *entries])), None):
        raise InputError(problem)
    return cache


def _usable(entry: Path, *, console: Console) -> FrozenAgent | None:
    """The agent in `entry`, None when it has to be frozen (again)."""
    if not entry.is_dir():
        return None
    try:
        return load_agent(entry / PROGRAM)
    except (InputError, OSError):
        console.say(f"the frozen agent in {entry} is damaged")
        return None


def _make_agent(entry: Path, *, make: Maker, console: Console, title: str) -> FrozenAgent:
    """Have `make` make the agent for `entry`. The caller holds the lock."""
    with _new_folder(entry.parent) as folder, console.step(title) as step:
        new = folder / "entry"
        new.mkdir(mode=0o755)
        make(folder).rename(new / PROGRAM)
        _replace(entry, new, aside=folder)
        agent = load_agent(entry / PROGRAM)
        step.note(f"{agent.size / 1e6:.1f} MB, for {agent.machine} with glibc {agent.glibc} or newer")
        return agent


@contextmanager
def _new_folder(cache: Path) -> Iterator[Path]:
    """A folder to make an entry in. As the caller holds the lock, what is left of earlier ones is no one's."""
    for leftover in cache.glob("new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with temporary_folder(prefix="new-", parent=cache) as folder:
        yield folder


def _replace(entry: Path, new: Path, *, aside: Path) -> None:
    """Make `new` the entry; a damaged or old one goes into the folder `aside`."""
    with held():
        if entry.exists():
            entry.rename(aside / "old")
        new.rename(entry)


@contextmanager
def _locked(cache: Path, *, console: Console) -> Iterator[None]:
    """Hold the lock of `cache`, which is made where it is missing; the kernel lets go of it when we die."""
    make_private(cache)
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
        environments = [path for path in by_use if path.name.startswith(_ENVIRONMENT)]
        agents = [path for path in by_use if path not in environments]
        for entry in (*agents[_KEPT_AGENTS:], *environments[_KEPT_ENVIRONMENTS:]):
            if entry != keep and entry.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                shutil.rmtree(entry)
