"""A published folder: versions of a layout, of which servers serve one.

    DIR/versions/20261130T074501Z-1a2b3c4d/    a layout: when it was published, and its manifest's digest, shortened
    DIR/current -> versions/…                  the version that is served
    DIR/history                                the versions that were current, one a line, the present one last

A version never changes. Servers have DIR/current as their root, so another version is served from one moment to the
next. `publish.py` writes such folders; this module reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.input_file import read_input
from pxe_pack.layout.layout import CURRENT, VERSIONS, Layout
from pxe_pack.real_path import real_path
from pxe_pack.tools import InputError, command_line

HISTORY = "history"
TIME = "%Y%m%dT%H%M%SZ"  # of a version's name, in UTC
_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Published:
    """A published folder."""

    root: Path

    @property
    def current_link(self) -> Path:
        """The root of the servers: the link to the version that is served."""
        return self.root / CURRENT

    @property
    def current(self) -> str | None:
        """The name of the version that is served; None if there is none."""
        try:
            folder, _, name = str(self.current_link.readlink()).rpartition("/")
        except OSError:
            return None
        return name if folder == VERSIONS and _NAME.fullmatch(name) else None

    def versions(self) -> list[str]:
        """The names of all versions, oldest first."""
        try:
            found = [path.name for path in (self.root / VERSIONS).iterdir() if path.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if _NAME.fullmatch(name))

    def history(self) -> list[str]:
        """The versions to go back to, and the current one at the end; all of them exist.

        The link decides: what the file has after the current version is not believed. Raises InputError if it is no
        file.
        """
        try:
            lines = read_input(self.root / HISTORY).decode("ascii", errors="replace").split()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            message = f"cannot read {self.root / HISTORY}: {error.strerror}"
            hint = "move it away: publishing writes it again"
            raise InputError(Problem(reference="output-foreign", message=message, hint=hint)) from error
        existing, current = set(self.versions()), self.current
        known = [name for name in lines if name in existing]
        if current is None:
            return known
        return [*known[: known.index(current)], current] if current in known else [*known, current]

    def find(self, written: str) -> str:
        """The version whose name is, or uniquely contains, `written`. Raises InputError."""
        versions = self.versions()
        found = [written] if written in versions else [name for name in versions if written in name]
        if len(found) == 1:
            return found[0]
        message = f"{self.root} has {'several versions' if found else 'no version'} {written}"
        hint = f"choose from {', '.join(found or versions)}" if versions else "publish one: pxe-pack pack --publish DIR"
        raise InputError(Problem(reference="version-unknown", message=message, hint=hint))

    def layout(self, version: str) -> Layout:
        """The layout of a version. Raises InputError if its manifest cannot be trusted."""
        return Layout.read(self.root / VERSIONS / version)


def published_at(version: str) -> datetime:
    """When the version of this name was published."""
    return datetime.strptime(version.partition("-")[0], TIME).replace(tzinfo=UTC)


def version_in(path: str) -> str:
    """The version whose folder is, or contains, the absolute `path`; empty if there is none."""
    found = re.search(rf"/{VERSIONS}/({_NAME.pattern})(?:/|$)", path)
    return found[1] if found else ""


def find_published(folder: Path) -> Published | None:
    """The published folder that `folder` is, or that it is the `current` of; None if it is another folder."""
    for root in _candidates(folder):
        if (root / CURRENT).is_symlink() and (root / VERSIONS).is_dir():
            return Published(real_path(root))
    return None


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder
    if folder.is_symlink() and folder.name == CURRENT:
        yield folder.parent


def read_published(folder: Path) -> Published:
    """The published folder at `folder`. Raises InputError if there is none."""
    if found := find_published(folder):
        return found
    if problem := _no_current(folder):
        raise InputError(problem)
    message = f"{folder} has no versions of a layout"
    hint = f"publish one: {command_line('pxe-pack', 'pack', 'fetch.yaml', '--publish', folder)}"
    raise InputError(Problem(reference="not-published", message=message, hint=hint))


def _no_current(folder: Path) -> Problem | None:
    """The problem that `folder` has versions, but no link to one of them."""
    if os.path.lexists(folder / CURRENT) or not (versions := Published(folder).versions()):
        return None
    message = f"{folder} has versions of a layout, but no link {CURRENT} to the one that is served"
    hint = command_line("ln", "-s", f"{VERSIONS}/{versions[-1]}", folder / CURRENT)
    return Problem(reference="not-published", message=message, hint=hint)


def served_folder(folder: Path) -> Path:
    """The folder that servers have as their root: the layout's own, or the link to the current version of it.

    Raises InputError if there are versions, and none of them is current.
    """
    found = find_published(folder)
    if not found and (problem := _no_current(folder)):
        raise InputError(problem)
    return found.current_link if found else real_path(folder)
