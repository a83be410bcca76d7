"""Add files to a squashfs in the time of a copy, and remove them again.

Nothing in the image is decompressed or moved except the ends of its tables; see docs/decisions/0005-graft.md.
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

PADDING: Final = 4096  # bytes: images are padded to a multiple of it, for block devices
# New data starts at a multiple of an ISO's sector size, so that it can be an extent of its own in an ISO.
ALIGNMENT: Final = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class GraftReport:
    """What a graft did."""

    size: int  # of the output, in bytes
    kept: int  # bytes taken from the source; all but the first 96 are unchanged
    inodes: int  # number of inodes in the new table
    added: tuple[str, ...]  # paths as given in the additions
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    regrafted: bool  # the source already had a graft, which the output no longer has


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
    """Write `source` with `additions` and without `removals` to `output`, and return a report.

    `source` is a squashfs, or contains one of `size` bytes at `offset` (an ISO). An existing graft is removed first, so
    grafting twice gives the second graft alone, byte for byte. Existing directories keep their attributes; parents must
    exist or be added. `mkfs_time` is the image's new timestamp, by default the old one. `listener` gets all bytes of
    the output in order while it is written.

    The same arguments give the same bytes. `source` is only read. `output` appears complete or not at all; it is not
    synced. Raises SquashfsError if the source is damaged or unsupported or an addition is impossible, and WorkError if
    `output` cannot be written.
    """
    _check_apart(source, output)
    with Image.open(source, offset=offset, size=size) as image:
        grown = Graft(image, additions=additions, removals=removals)
        with Output(output) as file:
            if listener is None:  # a listener must see the new superblock before the copied bytes
                file.begin(grown.base.source)
            file.skip(grown.start)
            head = grown.write(file, mkfs_time=mkfs_time)
            file.fill(grown.base.source, head=head, listener=listener)
        return grown.report


class Graft:
    """A graft written in two parts: the data appended to the image's bytes, then the new first 96 bytes.

    For callers that already have the image's bytes in place, such as a copy, a clone, or an extent of an ISO.
    """

    def __init__(self, image: Image, *, additions: Sequence[Addition], removals: Iterable[str] = ()) -> None:
        """Writes nothing. Raises SquashfsError if the graft is impossible."""
        self._before = original(image)
        self.base = self._before or image  # its source has the bytes that stay, apart from the first 96
        self._changes = merge(self.base, additions=additions, removals=removals)
        self._grown = GraftWriter(self.base, self._changes)
        self._size = 0

    @property
    def start(self) -> int:
        """The offset of the new part, a multiple of 2048; the gap after the image's bytes is filled with zeros."""
        return -(-self.base.source.size // ALIGNMENT) * ALIGNMENT

    def write(self, sink: Sink, *, mkfs_time: int | None = None) -> bytes:
        """Write the new part to `sink`, positioned at `start`; returns the new first 96 bytes. Call it once."""
        time = self.base.superblock.mkfs_time if mkfs_time is None else mkfs_time
        superblock = self._grown.write(sink, mkfs_time=time)
        sink.put(bytes(-sink.position % PADDING))
        self._size = sink.position
        return superblock.pack()

    @property
    def report(self) -> GraftReport:
        """What the graft did; `size` is 0 until `write` has run."""
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
    """Write the image that `source` was before its graft to `output`, byte for byte, and return its size.

    `source`, `offset`, `size` and `listener` are as for `graft()`. Raises SquashfsError if `source` has no graft, and
    WorkError if `output` cannot be written.
    """
    _check_apart(source, output)
    with Image.open(source, offset=offset, size=size) as image:
        before = original(image)
        if before is None:
            raise SquashfsError(
                Problem(
                    reference="graft-none",
                    message=f"{source} has no graft to remove",
                    hint="files added without a graft must be removed with the tool that added them",
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
                message=f"{output} is the input image, which is never written to",
                hint="choose another output",
            )
        )
