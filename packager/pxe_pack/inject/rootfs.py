"""Inject into the root filesystem itself: graft the payload onto the squashfs, whose own bytes stay unchanged.

xorriso writes a new ISO around the squashfs, which comes last: it gets a placeholder for it, so that the large file is
copied only once, to its final place, while being hashed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.hashing import Advance, SizeAndDigest, Span, copy_into, copy_span, splice, write_all
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import xorriso
from pxe_pack.inject.grow_last_file import grow_last_file
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.iso_record import append_record
from pxe_pack.inject.selinux_labels import SelinuxLabels
from pxe_pack.inject.trace_iso import trace_rewritten
from pxe_pack.inject.xorriso import EDITOR, Placed
from pxe_pack.payload import Payload
from pxe_pack.squashfs import (
    Addition,
    Graft,
    NewDirectory,
    NewFile,
    NewSymlink,
    SquashfsError,
    original,
)

TOOLS: tuple[str, ...] = (EDITOR,)
HOW = "the payload grafted onto the root filesystem's squashfs"

_MARGIN = 1 << 20  # bytes
_PLACEHOLDER = SECTOR  # bytes: enough to get an extent of its own


def unsupported_reason(image: LiveImage) -> str | None:
    """Why this injector does not work for `image`; None if it does."""
    if reason := no_squashfs(image):
        return reason
    try:
        _ = image.liveos.tree.image.codec
    except SquashfsError as error:
        return f"cannot graft onto {image.liveos.root.path}: {error.problems[0].message}"
    return None


def no_squashfs(image: LiveImage) -> str | None:
    """Why the root filesystem of `image` cannot be changed; None if it is a plain squashfs."""
    if image.live is None:
        return "its root filesystem is its initrd, not a squashfs"
    live = image.live
    if live.superblock is None:
        return f"{live.root.path} is an {live.root_format} filesystem, not a squashfs"
    if image.facts.nested:
        return f"{live.root.path} is a squashfs that only wraps another filesystem ({image.facts.nested})"
    return xorriso.CASE_DIFFERS if live.case_differs else None


def disk_space(image: LiveImage, payload: Payload) -> int:
    """Upper bound of the disk space it needs, in bytes."""
    live = image.liveos
    superblock = live.tree.image.superblock
    tables = superblock.bytes_used - superblock.inode_table  # written again after the new data
    return live.iso.size + 2 * payload.size + tables + _MARGIN


@dataclass(frozen=True, kw_only=True, slots=True)
class _Root:
    """A new root filesystem: the image's first `kept` bytes, with `head` over their beginning and `tail` after them."""

    kept: int  # bytes of the image's own, including those that `head` overwrites
    head: bytes
    tail: bytearray

    @property
    def size(self) -> int:
        return self.kept + len(self.tail)


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
    """Write the ISO with the payload grafted onto its root filesystem; see Injector."""
    with console.step("Grafting the payload onto the root filesystem") as step:
        removals = [path.rstrip("/") for path in payload.replaces]
        root = _grafted(image, additions=list(_additions(image, payload)), removals=removals)
        step.note(f"{image.liveos.span.size:,} → {root.size:,} bytes")
    return Injected(files={target.iso: _write(image, root, target.place(target.iso), work=work, console=console)})


def copy_original(image: LiveImage, target: Path) -> None:
    """Write the root filesystem, without a graft if it has one, to the new file `target`. Raises OSError."""
    live = image.liveos
    before = original(live.tree.image) or live.tree.image
    copy_span(live.iso.file, target, offset=live.span.offset, size=before.source.size)
    with target.open("r+b") as file:
        file.write(before.superblock.pack())


def write_around(
    image: LiveImage,
    root: Path,
    target: Path,
    *,
    removed: Sequence[str] = (),
    placed: Sequence[Placed] = (),
    work: Path,
    advance: Advance,
) -> None:
    """Write the ISO to `target` with the squashfs `root` as its root filesystem, without `removed` and with `placed`.

    Raises WorkError and OSError.
    """
    size = root.stat().st_size
    place = _write_iso_without_root(image, target, size=size, removed=removed, placed=placed, work=work)
    with root.open("rb", buffering=0) as file:
        copy_into(file, target, at=place, size=size, advance=advance)


def _additions(image: LiveImage, payload: Payload) -> Iterator[Addition]:
    labels = SelinuxLabels(image.liveos.tree)
    for entry in payload.entries:
        xattrs = labels.xattrs(entry)
        mode, mtime = stat.S_IMODE(entry.mode), image.mtime
        if stat.S_ISDIR(entry.mode):
            yield NewDirectory(path=entry.path, mode=mode, mtime=mtime, xattrs=xattrs)
        elif stat.S_ISLNK(entry.mode):
            yield NewSymlink(path=entry.path, mode=mode, mtime=mtime, xattrs=xattrs, target=entry.target)
        else:
            yield NewFile(path=entry.path, mode=mode, mtime=mtime, xattrs=xattrs, content=entry.content)


def _grafted(image: LiveImage, *, additions: Sequence[Addition], removals: Sequence[str]) -> _Root:
    graft = Graft(image.liveos.tree.image, additions=additions, removals=removals)
    kept = graft.base.source.size
    tail = _Tail(position=graft.start, data=bytearray(graft.start - kept))
    head = graft.write(tail)
    return _Root(kept=kept, head=head, tail=tail.data)


@dataclass(slots=True)
class _Tail:
    """The bytes a graft adds, in memory: the compressed payload and the tables; a few thousandths of an image."""

    position: int
    data: bytearray

    def put(self, data: bytes) -> int:
        self.data += data
        self.position += len(data)
        return self.position - len(data)


def _write(image: LiveImage, root: _Root, output: Path, *, work: Path, console: Console) -> SizeAndDigest:
    """Write the ISO with the root filesystem `root` to `output`."""
    live = image.liveos
    with console.step("Writing the ISO around the root filesystem"):
        place = _write_iso_without_root(image, output, size=root.size, work=work)
        with output.open("r+b", buffering=0) as file:
            file.seek(place + root.kept)
            write_all(file, root.tail)
        with open_iso(output) as made:
            pieces = trace_rewritten(live.iso, made, root=live.root.path)
        append_record(output, pieces)
    kept = Span(offset=live.span.offset, size=root.kept)
    with console.step("Copying and hashing the root filesystem", total=root.kept) as step:
        return splice(live.iso.file, output, span=kept, at=place, head=root.head, advance=step.advance)


def _write_iso_without_root(
    image: LiveImage,
    output: Path,
    *,
    size: int,
    removed: Sequence[str] = (),
    placed: Sequence[Placed] = (),
    work: Path,
) -> int:
    """Write the ISO with space for a root filesystem of `size` bytes at its end, and return that space's offset."""
    live = image.liveos
    # A partition table also states the image's size, and a big file has several extents. Leave both to xorriso: give it
    # a placeholder of the full size, for which it writes zeros.
    whole = xorriso.is_hybrid(live.iso) or size >= xorriso.BIG_FILE
    placeholder = work / "root.img"
    with placeholder.open("xb") as file:
        file.truncate(size if whole else min(size, _PLACEHOLDER))
    root = Placed(path=live.root.path, source=placeholder, mode=live.root.mode)
    placed = [*placed, root]
    xorriso.rewrite(live.iso, output, removed=removed, placed=placed, last=root.path, mtime=image.mtime, work=work)
    placeholder.unlink()
    return grow_last_file(output, name=live.root.path, size=size)
