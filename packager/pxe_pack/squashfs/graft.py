"""Add files to a squashfs in the time of a copy, and take them out again.

Nothing that the image has is decompressed or moved but the ends of its tables; see docs/decisions/0005-graft.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs.addition import Addition
from pxe_pack.squashfs.errors import SquashfsError
from pxe_pack.squashfs.graft_record import original
from pxe_pack.squashfs.graft_writer import GraftWriter, Sink
from pxe_pack.squashfs.image import Image
from pxe_pack.squashfs.merge import merge
from pxe_pack.squashfs.output import Listener, Output

PADDING: Final = 4096  # bytes: images are multiples of it, for block devices
# What is new begins at a multiple of an ISO's block, so that it can be an extent of its own in one.
ALIGNMENT: Final = 2048


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
    offset: int = 0,
    size: int | None = None,
    mkfs_time: int | None = None,
    listener: Listener | None = None,
) -> GraftReport:
    """Write `source` with `additions` and without `removals` to `output`, and say what that meant.

    `source` is a squashfs, or has one of `size` bytes at `offset` (an ISO). A graft that it has already is taken out
    first: grafting twice gives the second graft alone, byte for byte. Directories that exist keep their attributes;
    parents must exist or be added. `mkfs_time` is what the image will say of itself, by default what it said.
    `listener` is given all bytes of the output in order, while it is written.

    The same arguments give the same bytes. `source` is only read; `output` appears whole or not at all, and is synced
    by nobody. Raises SquashfsError for a source that is damaged or unknown and for additions that can't be made,
    WorkError when `output` can't be written.
    """
    _check_apart(source, output)
    with Image.open(source, offset=offset, size=size) as image:
        grown = Graft(image, additions=additions, removals=removals)
        with Output(output) as file:
            if listener is None:  # which else is to see the copied bytes after the new superblock
                file.begin(grown.base.source)
            file.skip(grown.start)
            head = grown.write(file, mkfs_time=mkfs_time)
            file.fill(grown.base.source, head=head, listener=listener)
        return grown.report


class Graft:
    """A graft to be written in two parts: what comes behind the image's bytes, then the 96 that begin it anew.

    For whoever has those bytes in place already: a copy or a clone that is grown, or an extent of an ISO.
    """

    def __init__(self, image: Image, *, additions: Sequence[Addition], removals: Iterable[str] = ()) -> None:
        """Nothing is written. Raises SquashfsError for what can't be done."""
        self._before = original(image)
        self.base = self._before or image  # its window has the bytes that stay, the first 96 apart
        self._changes = merge(self.base, additions=additions, removals=removals)
        self._grown = GraftWriter(self.base, self._changes)
        self._size = 0

    @property
    def start(self) -> int:
        """Where the new part begins: a multiple of 2048; between the image's bytes and it are zeros."""
        return -(-self.base.source.size // ALIGNMENT) * ALIGNMENT

    def write(self, sink: Sink, *, mkfs_time: int | None = None) -> bytes:
        """Write the new part to `sink`, which stands at `start`, and give the image's first 96 bytes. Once."""
        time = self.base.superblock.mkfs_time if mkfs_time is None else mkfs_time
        superblock = self._grown.write(sink, mkfs_time=time)
        sink.put(bytes(-sink.position % PADDING))
        self._size = sink.position
        return superblock.pack()

    @property
    def report(self) -> GraftReport:
        """What was done; `size` is known when it is."""
        return GraftReport(
            size=self._size,
            kept=self.base.source.size,
            inodes=self._grown.count,
            added=self._changes.added,
            replaced=self._changes.replaced,
            removed=self._changes.removed,
            regrafted=self._before is not None,
        )


def prune(
    source: Path, *, output: Path, offset: int = 0, size: int | None = None, listener: Listener | None = None
) -> int:
    """Write to `output` the image that was grafted to become `source`, byte for byte, and give its size.

    `source`, `offset`, `size` and `listener` are as for `graft()`. Raises SquashfsError when `source` has no graft,
    WorkError when `output` can't be written.
    """
    _check_apart(source, output)
    with Image.open(source, offset=offset, size=size) as image:
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
            file.fill(before.source, head=before.superblock.pack(), listener=listener)
        return before.source.size


def _check_apart(source: Path, output: Path) -> None:
    if output.exists() and source.exists() and output.samefile(source):
        raise SquashfsError(
            Problem(
                reference="output-is-input",
                message=f"{output} is the image that is read; it is never written to",
                hint="choose another output",
            )
        )
