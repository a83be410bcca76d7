"""Publishes a layout as the next version below a folder, and goes back to an earlier one (layout/published.py).

A version is staged next to the others and renamed into place; then the link `current` is replaced by rename(2), so a
reader sees either the old version or the new one. Publishing deletes the oldest versions, but neither the current one
nor the one before it, from which nodes may still be booting.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import committing
from pxe_pack.hashing import hash_file
from pxe_pack.layout.files import what_is
from pxe_pack.layout.layout import CURRENT, VERSIONS, Layout
from pxe_pack.layout.manifest import MANIFEST, SUMS
from pxe_pack.layout.published import HISTORY, TIME, Published, published_at
from pxe_pack.output import Staging, locked, new_staging, parent_problem, staging_folder
from pxe_pack.tools import InputError, WorkError

KEEP = 5  # versions that are kept by default
_DIGITS = 8  # of the manifest's digest in a version's name


@contextmanager
def publishing(versions: Path, *, keep: int) -> Iterator[Staging]:
    """A staging area for the next version in the folder `versions`. When the block succeeds, it is current.

    A layout that is there already, to the byte, becomes current again; there is no second one. All but the newest
    `keep` versions are removed. Raises WorkError if the folder has changed in the meantime and cannot be published to.
    """
    published = Published(versions.parent)
    with staging_folder(versions) as root:
        made = new_staging(root, output=versions)
        yield made
        with locked(versions.parent), committing():
            if problem := publish_problem(versions):
                raise WorkError(problem)
            versions.mkdir(exist_ok=True)
            digest = hash_file(made.layout / MANIFEST).sha256
            version = _existing(published, digest) or _next_name(published, digest)
            if not (versions / version).exists():
                made.layout.rename(versions / version)
            _make_current(published, version)
            for old in _surplus(published, keep=keep):
                (versions / old).rename(root / old)  # removed with the staging folder
            made.output = versions / version


def publish_layout(layout: Layout, versions: Path, *, keep: int) -> Path:
    """Publish a copy of a layout that was written before, as it is; returns the version's folder.

    Raises InputError if it is not complete or has files that its manifest does not list, WorkError and OSError.
    """
    problems = [replace(found, severity="error") for found in layout.differing()]
    if unlisted := layout.unlisted():
        message = f"{layout.root} contains {what_is(unlisted[0])} that pxe-pack did not write: {unlisted[0]}"
        problems.append(Problem(reference="output-foreign", message=message, hint="move it away, or pack again"))
    problems += [found] if (found := publish_problem(versions)) else []
    if problems:
        raise InputError(*problems)
    with publishing(versions, keep=keep) as made:
        for path in (*layout.files, MANIFEST, SUMS):
            target = made.layout / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(layout.root / path, target)
        for folder in made.layout.rglob("*/"):
            folder.chmod(0o755)  # independent of the umask
    return made.output


def publish_problem(versions: Path) -> Problem | None:
    """The reason why no version can be put into the folder `versions`; None if one can. Raises InputError."""
    root = versions.parent
    if problem := parent_problem(versions):
        return problem
    foreign = sorted(path.name for path in root.iterdir() if path.name not in {VERSIONS, CURRENT, HISTORY})
    foreign = [name for name in foreign if ".pxe-pack-" not in name]
    if (not versions.is_dir() and foreign) or versions.is_symlink():
        return Problem(
            reference="output-foreign",
            message=f"the folder {root} has no versions of a layout, but contains {(foreign or [VERSIONS])[0]}",
            hint="choose an empty folder with --publish, or move its contents away",
        )
    current = Published(root).current_link
    if os.path.lexists(current) and not current.is_symlink():
        return Problem(
            reference="output-foreign",
            message=f"{current} is not a link, so pxe-pack did not make it",
            hint="move it away: it will be a link to the version that is served",
        )
    Published(root).history()  # before anything is published
    return None


def roll_back(published: Published, version: str | None) -> tuple[str | None, str]:
    """Make `version` current, or the one that was before the current one; returns what was current, and what is.

    Raises InputError if there is no such version, or if it is not complete; nothing is changed then.
    """
    with locked(published.root), committing():
        before = published.current
        chosen = published.find(version) if version else _one_before(published)
        if differing := published.layout(chosen).differing():
            message = f"the version {chosen} is not complete: {differing[0].message}"
            raise InputError(Problem(reference="version-incomplete", message=message, hint="choose another version"))
        _make_current(published, chosen)
    return before, chosen


def _one_before(published: Published) -> str:
    history = published.history()
    if len(history) > 1:
        return history[-2]
    message = f"no version was current in {published.root} before {published.current or 'any'}"
    hint = f"name one of {', '.join(published.versions())}: pxe-pack rollback DIR VERSION"
    raise InputError(Problem(reference="version-unknown", message=message, hint=hint))


def _existing(published: Published, digest: str) -> str | None:
    """The version with the manifest of this digest; None if there is none, or if it is not complete any more."""
    for name in published.versions():
        folder = published.root / VERSIONS / name
        if name.endswith(digest[:_DIGITS]) and (folder / MANIFEST).is_file():
            same = hash_file(folder / MANIFEST).sha256 == digest
            if same and not Layout.read(folder).differing():
                return name
    return None


def _next_name(published: Published, digest: str) -> str:
    """A name that comes after all others, also if the clock went back."""
    now = datetime.now(UTC).replace(microsecond=0)
    if others := published.versions():
        now = max(now, published_at(others[-1]) + timedelta(seconds=1))
    return f"{now.strftime(TIME)}-{digest[:_DIGITS]}"


def _make_current(published: Published, version: str) -> None:
    """Let `current` lead to `version`. The history is cut back to it, or gets it at its end."""
    history = published.history()
    history = history[: history.index(version)] if version in history else history
    _replace(published.root / HISTORY, "".join(f"{name}\n" for name in [*history, version]))
    link = published.root / f".{CURRENT}.pxe-pack-new"
    link.unlink(missing_ok=True)
    link.symlink_to(f"{VERSIONS}/{version}")
    link.replace(published.current_link)


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.pxe-pack-new")
    new.write_text(text, encoding="ascii")
    new.replace(file)


def _surplus(published: Published, *, keep: int) -> list[str]:
    """The versions to remove."""
    versions = published.versions()
    kept = {*versions[-keep:], *published.history()[-2:]}
    return [name for name in versions if name not in kept]
