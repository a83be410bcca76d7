"""The hook by which a node verifies the ISO: files appended to a bootstrap initrd (docs/decisions/0042).

`livenetroot.sh` takes the place of dracut's script of that name, which fetches the ISO and hands it to what mounts it.
The sha256 program comes from the image's own root filesystem, with its libraries only where the initrd has others.

Sources: dracut, modules.d/90livenet (70livenet since 108) and 45url-lib, releases 059 to 111; Azure Linux,
SPECS/dracut/90livenet/azl-liveos-artifacts-download.sh, which calls /sbin/livenetroot too; Linux, init/initramfs.c: a
later archive replaces a file at the same path, and a directory entry would remove a link at its path.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.initrd.download import LIVENETROOT
from pxe_pack.image.initrd.reader import InitrdFacts
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.program import Program, ProgramError, find_program, runs_with
from pxe_pack.image.tree import RootTree, regular_file
from pxe_pack.layout.urls import is_nfs
from pxe_pack.payload import Entry
from pxe_pack.tools import InputError

FOLDER = "usr/lib/pxe-fetch-iso"  # in the initrd; livenetroot.sh names it too
_SHA256 = "usr/bin/sha256sum"
_IN_INITRD = ("usr/bin/sha256sum", "bin/sha256sum", "usr/sbin/sha256sum", "sbin/sha256sum")
_RUNNABLE, _DIRECTORY = stat.S_IFREG | 0o755, stat.S_IFDIR | 0o755


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoHook:
    """The files that each initrd gets, by its path on the medium: parents first, and the last one in FOLDER."""

    entries: Mapping[str, tuple[Entry, ...]]

    @property
    def size(self) -> int:
        """Bytes added to all initrds, uncompressed."""
        return sum(entry.size for entries in self.entries.values() for entry in entries)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Whether nodes verify the ISO, and why, as a clause for the user."""

    hook: IsoHook | None
    why: str

    def document(self) -> dict[str, object]:
        """It as JSON values."""
        return {"on": self.hook is not None, "why": self.why}


def choose_verification(wanted: str, image: LiveImage, *, boot_url: str) -> Verification:
    """What the setting `wanted` (auto, true or false) comes to for `image`.

    Raises InputError if it is `true` and the image cannot have the hook.
    """
    if wanted == "false":
        return Verification(hook=None, why="switched off")
    try:
        hook, program = _hook(image, boot_url=boot_url)
    except ProgramError as error:
        if wanted == "auto":
            return Verification(hook=None, why=str(error))
        message = f"nodes cannot verify the ISO of {image.path}: {error}"
        hint = "with `verify_iso: auto`, the image is packed without that"
        raise InputError(Problem(reference="iso-unverifiable", message=message, hint=hint)) from error
    return Verification(hook=hook, why=f"an archive appended to the initrd compares it with {program}")


def _hook(image: LiveImage, *, boot_url: str) -> tuple[IsoHook, str]:
    """The hook, and what computes the digest. Raises ProgramError."""
    if image.live is None:
        raise ProgramError("there is none: the initrd is the root filesystem")
    if is_nfs(boot_url):
        raise ProgramError("it is not downloaded by nfs, but mounted from the share")
    program: Program | None = None
    entries: dict[str, tuple[Entry, ...]] = {}
    for name, facts in image.initrds.items():
        own = _has_sha256sum(facts.tree)
        program = program if own or program else _program(image)
        entries[name] = tuple(_entries(name, facts, None if own else program))
    return IsoHook(entries=entries), "the image's sha256sum" if program else "the initrd's own sha256sum"


def _has_sha256sum(tree: RootTree) -> bool:
    return any(tree.resolve(path) in tree.stat([tree.resolve(path)]) for path in _IN_INITRD)


def _program(image: LiveImage) -> Program:
    if image.tree is None:
        raise ProgramError(f"sha256sum cannot be taken out of its root filesystem, which is an {image.root_format}")
    return find_program(image.tree, _SHA256)


def _entries(name: str, facts: InitrdFacts, program: Program | None) -> Iterator[Entry]:
    if not facts.readable:
        raise ProgramError(f"the initrd {name} cannot be read: {facts.unread_reason}")
    if facts.squashed:  # dracut's init-squash.sh switches to the image; the archive's own files are not in it
        raise ProgramError(f"{name} boots from an image inside it, which hides what is appended")
    tree = facts.tree
    original = regular_file(tree, LIVENETROOT) or b""
    if b"fetch_url" not in original or b"dmsquash-live-root" not in original:
        raise ProgramError(f"the initrd {name} has no script {LIVENETROOT} of dracut's")
    folder = tree.resolve(FOLDER)
    yield from _missing(tree, folder)
    script = (files(__package__) / "livenetroot.sh").read_bytes()
    yield Entry(path=tree.resolve(LIVENETROOT), mode=_RUNNABLE, content=script)
    yield Entry(path=f"{folder}/livenetroot", mode=_RUNNABLE, content=original)
    if program is None:
        return
    yield Entry(path=f"{folder}/sha256sum", mode=_RUNNABLE, content=program.content)
    if not runs_with(program, tree):
        yield Entry(path=f"{folder}/ld.so", mode=_RUNNABLE, content=program.loader_content)
        for library, content in sorted(program.libraries.items()):
            yield Entry(path=f"{folder}/{library}", mode=_RUNNABLE, content=content)


def _missing(tree: RootTree, folder: str) -> Iterator[Entry]:
    """The folder and those above it that the initrd does not have."""
    wanted = [str(path) for path in (*reversed(PurePosixPath(folder).parents), PurePosixPath(folder))][1:]
    there = tree.stat(wanted)
    yield from (Entry(path=path, mode=_DIRECTORY) for path in wanted if path not in there)
