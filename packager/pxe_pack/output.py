"""The output folder: written under a temporary name next to the output, then renamed into place in one step.

    <parent>/.<name>.pxe-pack-XXXXXXXX/      the staging folder, locked; the next run removes what a killed run left
        layout/                              becomes <parent>/<name>
        work/                                temporary files
        previous/                            the old layout during the rename, if folders cannot be exchanged

An output folder is ours if its manifest lists every file in it. Any other folder is refused, never emptied. Nothing is
synced to disk; after a power failure, SHA256SUMS shows whether the files are complete.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import committing, removed, temporary_folder
from pxe_pack.layout.files import found_below, what_is
from pxe_pack.layout.layout import CURRENT, VERSIONS, Layout, find_layout
from pxe_pack.tools import InputError, WorkError, command_line

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h


@dataclass(kw_only=True, slots=True)
class Staging:
    """The folders in which a layout is built."""

    layout: Path
    work: Path
    output: Path  # what the layout becomes; a published version has its name only when it is in place


def parent_problem(output: Path) -> Problem | None:
    """The reason why the parent folder of `output` cannot be written to; None if it can."""
    if not output.parent.is_dir():
        return Problem(
            reference="output-no-parent",
            message=f"the output's parent folder {output.parent} does not exist or is not a folder",
            hint=command_line("mkdir", "-p", output.parent),
        )
    if not os.access(output.parent, os.W_OK | os.X_OK):
        return Problem(
            reference="output-unwritable",
            message=f"the output's parent folder {output.parent} is not writable",
            hint="choose another folder with --output",
        )
    return None


def output_problem(output: Path) -> Problem | None:
    """The reason why `output` cannot be written or replaced; None if it can."""
    if problem := parent_problem(output):
        return problem
    if not output.exists() and not output.is_symlink():
        return None
    if not output.is_dir():
        return Problem(
            reference="output-foreign",
            message=f"the output {output} exists and is not a folder",
            hint="choose another name with --output, or move it away",
        )
    if problem := published_problem(output):
        return problem
    foreign = _foreign(output)
    if foreign is None:
        return None
    return Problem(
        reference="output-foreign",
        message=f"the output folder {output} contains {what_is(foreign)} that pxe-pack did not write: {foreign}",
        hint="choose another folder with --output, or move its contents away",
    )


def published_problem(output: Path) -> Problem | None:
    """The reason why the layout `output` must not change: it is a published version. None if it is none."""
    if output.parent.name != VERSIONS or not (output.parent.parent / CURRENT).is_symlink():
        return None
    return Problem(
        reference="output-published",
        message=f"{output} is a published version, which never changes",
        hint="change a layout elsewhere, or a copy of this one, and publish it: pxe-pack publish LAYOUT DIR",
    )


def _foreign(output: Path) -> str | None:
    """The path of a file or an empty folder that no earlier pack wrote; None if there is none."""
    try:
        layout = find_layout(output)
    except InputError:  # a manifest that cannot be trusted makes nothing ours
        layout = None
    return next(iter(layout.unlisted() if layout else found_below(output)), None)


@contextmanager
def staging(output: Path, *, of: Layout | None = None) -> Iterator[Staging]:
    """A staging area for `output`. When the block succeeds, its layout becomes `output`; the rest is removed.

    Raises WorkError if `output` has changed in the meantime and cannot be replaced, or if the layout `of`, which it is
    made from, has.
    """
    with staging_folder(output) as root:
        made = new_staging(root, output=output)
        yield made
        # the lock also keeps other packs from looking at the folder during the exchange
        with locked(output.parent):
            if of:
                of.check_unchanged()
            with committing():
                _put_into_place(made.layout, output, aside=root / "previous")


def new_staging(root: Path, *, output: Path) -> Staging:
    """Create the staging area for `output` in the staging folder `root`."""
    made = Staging(layout=root / "layout", work=root / "work", output=output)
    made.layout.mkdir()
    made.layout.chmod(0o755)
    made.work.mkdir()
    return made


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A temporary folder next to `output`, removed when the block ends. Removes leftovers of killed runs first."""
    with contextlib.ExitStack() as stack:
        # the lock keeps other runs from taking our folder for a leftover before we have locked it
        with locked(output.parent):
            _remove_leftovers(output)
            root = stack.enter_context(temporary_folder(prefix=_prefix(output), parent=output.parent))
            stack.enter_context(locked(root))
        yield root


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder (flock(2)). The kernel releases it when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prefix(output: Path) -> str:
    return f".{output.name}.pxe-pack-"


def _remove_leftovers(output: Path) -> None:
    """Remove the staging folders of killed runs. Those of running packs are locked; files are not ours."""
    for leftover in output.parent.glob(f"{_escaped(_prefix(output))}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            descriptor = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (leftover / "previous").is_dir() and not output.exists():
                (leftover / "previous").rename(output)
            with removed(leftover):
                pass


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _put_into_place(layout: Path, output: Path, *, aside: Path) -> None:
    if problem := output_problem(output):  # check again: it may have changed since
        raise WorkError(problem)
    if not output.exists() or not any(output.iterdir()):
        layout.rename(output)
        return
    if not _exchanged(layout, output):
        output.rename(aside)
        layout.rename(output)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders atomically (renameat2(2)). False if the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # glibc < 2.28, musl < 1.2.4
        return False
    paths = [os.fsencode(path.absolute()) for path in (one, other)]
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(other))
