"""The files added to the root filesystem: the agent, its units, the configuration, and the folders it writes to.

Symbolic links in the image are followed: if /usr/lib or /etc is a link, the payload goes to its target inside the
image. A directory that already exists keeps its owner and mode and is not part of the payload.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pxe_fetch.contract.paths import (
    AGENT,
    AGENT_DIR,
    CATALOG,
    CATALOG_UNIT_NAME,
    CONFIG_ETC,
    CREDENTIALS_DIR,
    LIVE_SPACE_LINK,
    LIVE_SPACE_UNIT_NAME,
    TARGET_NAME,
    TRUST_DIR,
    UNIT_DIR,
    UNIT_NAME,
    WANTS_LINK,
)
from pxe_fetch.contract.problem import Problem
from pxe_pack.image.tree import Inode, RootTree
from pxe_pack.tools import InputError
from pxe_pack.trust.keys import TrustKey
from pxe_pack.unit import unit_files

TMPFILES = "/usr/lib/tmpfiles.d/pxe-fetch.conf"
COMMAND = "/usr/bin/pxe-fetch"
MANUAL = "/usr/share/man/man8/pxe-fetch.8.gz"
COMPLETION = "/usr/share/bash-completion/completions/pxe-fetch"
# Paths that a pack writes; files of an earlier pack are removed first. A trailing slash: with everything below.
OWNED = (
    f"{AGENT_DIR}/",
    f"{UNIT_DIR}/{UNIT_NAME}",
    f"{UNIT_DIR}/{TARGET_NAME}",
    f"{UNIT_DIR}/{CATALOG_UNIT_NAME}",
    f"{UNIT_DIR}/{LIVE_SPACE_UNIT_NAME}",
    LIVE_SPACE_LINK,
    WANTS_LINK,
    CATALOG,
    CONFIG_ETC,
    f"{TRUST_DIR}/",
    f"{CREDENTIALS_DIR}/",
    TMPFILES,
    COMMAND,
    MANUAL,
    COMPLETION,
)

_OWNED_PARENTS = {str(PurePosixPath(owned.strip("/")).parent) for owned in OWNED}
_VOLATILE = ("run", "tmp", "dev", "proc", "sys")  # mounted over at boot, which would hide a folder of the image


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One inode of the payload, owned by root. `path` has no leading slash; `mode` is st_mode, with the type."""

    path: str
    mode: int
    content: bytes | Path = b""  # files only
    target: str = ""  # symbolic links only

    @property
    def size(self) -> int:
        """The size of a file's content in bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """Everything added to the image, each directory before its contents."""

    entries: tuple[Entry, ...]
    replaces: tuple[str, ...]  # paths of earlier packs inside the image; a trailing slash: with everything below
    config: str  # the path of the configuration

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def with_config(self, config: str) -> Payload:
        """The payload with another configuration."""
        entries = (replace(e, content=config.encode()) if e.path == self.config else e for e in self.entries)
        return replace(self, entries=tuple(entries))

    def is_replaced(self, path: str) -> bool:
        """True if `path` belongs to this pack or to an earlier one."""
        return any(path == owned or (owned.endswith("/") and f"{path}/".startswith(owned)) for owned in self.replaces)


def make_payload(
    *,
    agent: Path,
    service: str,
    live_space: str,
    config: str,
    roots: Sequence[str],
    trust: Sequence[TrustKey],
    credentials: Mapping[str, bytes],
    tree: RootTree | None,
) -> Payload:
    """The payload for the image with the root filesystem `tree` (None if it cannot be read: links are not followed).

    `service` and `live_space` are the units adapted to the image; `live_space` is empty if it is not needed. Raises
    InputError if the image has a file of another type at one of its paths. `credentials` are files that only root may
    read, by name.
    """
    from pxe_pack.commands import completion, man  # libraries that nothing else needs

    units = unit_files()
    wanted = [
        *_agent_entries(agent),
        _file(f"{UNIT_DIR}/{UNIT_NAME}", service.encode()),
        *(_file(f"{UNIT_DIR}/{name}", (units / name).read_bytes()) for name in (TARGET_NAME, CATALOG_UNIT_NAME)),
        _file(CATALOG, (units / PurePosixPath(CATALOG).name).read_bytes()),
        _file(CONFIG_ETC, config.encode()),
        *(_file(f"{TRUST_DIR}/{key.name}", key.content) for key in trust),
        *(_file(f"{CREDENTIALS_DIR}/{name}", content, mode=0o600) for name, content in credentials.items()),
        Entry(path=WANTS_LINK.lstrip("/"), mode=stat.S_IFLNK | 0o777, target=f"../{TARGET_NAME}"),
        Entry(path=COMMAND.lstrip("/"), mode=stat.S_IFLNK | 0o777, target=AGENT),
        _file(MANUAL, gzip.compress(man.agent_page().encode(), mtime=0)),
        _file(COMPLETION, completion.script("bash", man.agent_parser()).encode()),
    ]
    if live_space:
        wanted.append(_file(f"{UNIT_DIR}/{LIVE_SPACE_UNIT_NAME}", live_space.encode()))
        link = Entry(path=LIVE_SPACE_LINK.lstrip("/"), mode=stat.S_IFLNK | 0o777, target=f"../{LIVE_SPACE_UNIT_NAME}")
        wanted.append(link)
    volatile = [root for root in roots if _is_volatile(root) and root.strip("/") not in _VOLATILE]
    if volatile:
        lines = [f'd "{root}" 0755 root root -' for root in volatile]
        wanted.append(_file(TMPFILES, "\n".join(["# allowed_roots of pxe-fetch", *lines, ""]).encode()))
    folders = [root.strip("/") for root in roots if not _is_volatile(root)]
    return _placed(wanted, folders, tree)


def _is_volatile(path: str) -> bool:
    return path.strip("/").split("/")[0] in _VOLATILE


def _file(path: str, content: bytes | Path, *, mode: int = 0o644) -> Entry:
    return Entry(path=path.lstrip("/"), mode=stat.S_IFREG | mode, content=content)


def _agent_entries(agent: Path) -> list[Entry]:
    entries = []
    for path in sorted(agent.rglob("*")):
        name = f"{AGENT_DIR.lstrip('/')}/{path.relative_to(agent)}"
        if path.is_symlink():
            entries.append(Entry(path=name, mode=stat.S_IFLNK | 0o777, target=str(path.readlink())))
        elif path.is_dir():
            entries.append(Entry(path=name, mode=stat.S_IFDIR | 0o755))
        else:
            entries.append(_file(name, path, mode=0o755 if path.stat().st_mode & 0o100 else 0o644))
    return entries


def _placed(wanted: list[Entry], folders: list[str], tree: RootTree | None) -> Payload:
    """The payload of `wanted` and `folders` at their real paths, with missing parents. Raises InputError."""
    parents = {str(PurePosixPath(entry.path).parent) for entry in wanted} | set(folders)
    real = _resolved(parents | _OWNED_PARENTS, tree)
    moved = {
        (path := _below(real[str(PurePosixPath(entry.path).parent)], PurePosixPath(entry.path).name)): Entry(
            path=path, mode=entry.mode, content=entry.content, target=entry.target
        )
        for entry in wanted
    }
    for folder in (real[parent] for parent in parents):
        for ancestor in (folder, *map(str, PurePosixPath(folder).parents)):
            if ancestor not in ("", "."):
                moved.setdefault(ancestor, Entry(path=ancestor, mode=stat.S_IFDIR | 0o755))
    present = tree.stat(sorted(moved)) if tree else {}
    replaces = _owned_paths(real)
    config = _moved_owned(CONFIG_ETC, real)
    payload = Payload(entries=tuple(moved[path] for path in sorted(moved)), replaces=replaces, config=config)
    if problems := [problem for entry in payload.entries if (problem := _conflict(entry, present, payload))]:
        raise InputError(*problems)
    # directories inside a replaced folder have to be created again
    kept = tuple(e for e in payload.entries if payload.is_replaced(e.path) or not _is_there(e, present))
    return replace(payload, entries=kept)


def owned_paths(tree: RootTree | None) -> tuple[str, ...]:
    """The paths that packs write (OWNED) as they are in the root filesystem `tree`, whose links are followed."""
    return _owned_paths(_resolved(_OWNED_PARENTS, tree))


def _owned_paths(real: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_moved_owned(owned, real) for owned in OWNED)


def _moved_owned(owned: str, real: Mapping[str, str]) -> str:
    path = PurePosixPath(owned.strip("/"))
    return _below(real[str(path.parent)], path.name) + ("/" if owned.endswith("/") else "")


def _resolved(folders: set[str], tree: RootTree | None) -> dict[str, str]:
    """The real path of each folder, with the image's symbolic links resolved."""
    if tree is None:
        return {folder: folder for folder in folders}
    steps = {str(step) for folder in folders for step in (PurePosixPath(folder), *PurePosixPath(folder).parents)}
    present = tree.stat(sorted(steps - {".", ""}))
    links = {path for path, inode in present.items() if stat.S_ISLNK(inode.mode)}
    crossing = {f for f in folders if links & {f, *map(str, PurePosixPath(f).parents)}}
    return {folder: tree.resolve(folder) if folder in crossing else folder for folder in folders}


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder not in ("", ".") else name


def _is_there(entry: Entry, present: Mapping[str, Inode]) -> bool:
    """True if the image already has this directory."""
    inode = present.get(entry.path)
    return bool(inode and stat.S_ISDIR(entry.mode) and stat.S_ISDIR(inode.mode))


def _conflict(entry: Entry, present: Mapping[str, Inode], payload: Payload) -> Problem | None:
    inode = present.get(entry.path)
    if inode is None:
        return None
    is_foreign_command = entry.target == AGENT != inode.target  # not the link of an earlier pack
    if (stat.S_IFMT(inode.mode) == stat.S_IFMT(entry.mode) and not is_foreign_command) or (
        payload.is_replaced(entry.path) and _is_inner(entry, payload)
    ):
        return None
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFREG: "a file", stat.S_IFLNK: "a symbolic link"}
    has, needs = kinds.get(stat.S_IFMT(inode.mode), "a special file"), kinds[stat.S_IFMT(entry.mode)]
    if is_foreign_command:
        has, needs = (f"a link to {inode.target}" if inode.target else has), f"a link to {AGENT}"
    return Problem(
        reference="payload-conflict",
        message=f"the image has {has} at /{entry.path}, where pxe-pack needs {needs}",
        hint="rename it in the image",
    )


def _is_inner(entry: Entry, payload: Payload) -> bool:
    """True if the entry lies inside a folder that is replaced as a whole."""
    return any(owned.endswith("/") and entry.path.startswith(owned) for owned in payload.replaces)
