"""Add files to a squashfs in the time of a copy, and take them out again.

Nothing that the image has is decompressed or moved but the ends of its tables; see docs/decisions/0005-graft.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pxe_fetch.contract.problem import Problem

from .addition import Addition
from .errors import SquashfsError
from .grow import Grown
from .image import Image
from .merge import merge
from .output import Listener, Output
from .record import original

# Images are padded to this, for block devices; and what is appended begins at a multiple of it, so that it can be an
# extent of its own in a file system of larger blocks (2048 bytes in an ISO).
ALIGNMENT: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class GraftReport:
    """What a graft did."""

    size: int  # bytes of the output
    kept: int  # bytes of it, from the 96th on, that are the source's
    inodes: int  # that the table now has
    added: tuple[str, ...]  # paths as they were given
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    regrafted: bool  # the source had a graft already, which is in the output no more


def graft(
    source: Path,
    *,
    additions: Sequence[Addition],
    removals: Iterable[str] = (),
    output: Path,
    mkfs_time: int | None = None,
    listener: Listener | None = None,
) -> GraftReport:
    """Write `source` with `additions` and without `removals` to `output`, and say what that meant.

    A graft that `source` has already is taken out first: grafting twice gives the second graft alone, byte for byte.
    Directories that exist keep their attributes; parents must exist or be added. `mkfs_time` is what the image will say
    of itself, by default what it said. `listener` is given all bytes of the output in order, while it is written.
    The same arguments give the same bytes. `source` is only read; `output` appears whole or not at all, and is synced
    by nobody.

    Raises SquashfsError for a source that is damaged or unknown and for additions that can't be made, WorkError when
    `output` can't be written.
    """
    _check_apart(source, output)
    with Image.open(source) as image:
        before = original(image)
        base = before or image
        changes = merge(base, additions=additions, removals=removals)
        grown = Grown(base, changes)
        with Output(output) as file:
            file.skip(-(-base.window.size // ALIGNMENT) * ALIGNMENT)
            time = base.superblock.mkfs_time if mkfs_time is None else mkfs_time
            superblock = grown.write(file, mkfs_time=time)
            file.put(bytes(-file.position % ALIGNMENT))
            file.fill(base.window, head=superblock.pack(), listener=listener)
        return GraftReport(
            size=file.position,
            kept=base.window.size,
            inodes=superblock.inodes,
            added=changes.added,
            replaced=changes.replaced,
            removed=changes.removed,
            regrafted=before is not None,
        )


def prune(source: Path, *, output: Path, listener: Listener | None = None) -> int:
    """Write to `output` the image that was grafted to become `source`, byte for byte, and give its size.

    Raises SquashfsError when `source` has no graft, WorkError when `output` can't be written.
    """
    _check_apart(source, output)
    with Image.open(source) as image:
        before = original(image)
        if before is None:
            raise SquashfsError(
                Problem(
                    reference="graft-none",
                    message=f"{source} has no graft that could be taken out",
                    hint="what another way put into it, another way takes out",
                )
            )
        with Output(output) as file:
            file.fill(before.window, head=before.superblock.pack(), listener=listener)
        return before.window.size


def _check_apart(source: Path, output: Path) -> None:
    if output.exists() and source.exists() and output.samefile(source):
        raise SquashfsError(
            Problem(
                reference="output-is-input",
                message=f"{output} is the image that is read; it is never written to",
                hint="choose another output",
            )
        )
