"""The way in by the root filesystem itself: the payload grafted on the squashfs, whose own bytes stay as they are.

The ISO is written anew by xorriso, but for the squashfs, which comes last in it: xorriso is given a stand-in for it,
so that what is large is copied once, into its place, while it is hashed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.hashing import Advance, Span, copy_into, copy_span, splice, write_all
from pxe_pack.image.iso.reader import SECTOR
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import updates, xorriso
from pxe_pack.inject.grow_last_file import grow_last_file
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.selinux_labels import SelinuxLabels
from pxe_pack.inject.xorriso import EDITOR, Placed
from pxe_pack.payload import OWNED, Payload
from pxe_pack.squashfs import (
    Addition,
    Graft,
    Image,
    NewDirectory,
    NewFile,
    NewSymlink,
    SquashfsError,
    original,
)

TOOLS: tuple[str, ...] = (EDITOR,)
HOW = "the payload grafted on the root filesystem's squashfs"

_MARGIN = 1 << 20  # bytes
_STAND_IN = SECTOR  # bytes: enough to have a place of its own


def unsupported_reason(image: LiveImage) -> str | None:
    """Why this way is not right for `image`; None when it is."""
    if reason := no_squashfs(image):
        return reason
    try:
        with _opened(image) as root:
            _ = root.codec
    except SquashfsError as error:
        return f"{image.liveos.root.path} cannot be grafted on: {error.problems[0].message}"
    return None


def no_squashfs(image: LiveImage) -> str | None:
    """Why nothing can be put into the root filesystem of `image`; None when it is a squashfs by itself."""
    if image.live is None:
        return "its root filesystem is its initrd, and no squashfs"
    live = image.live
    if live.superblock is None:
        return f"{live.root.path} is an {live.root_format} file system, and no squashfs"
    if image.facts.nested:
        return f"{live.root.path} is a squashfs around a file system in a file ({image.facts.nested})"
    return None


def disk_space(image: LiveImage, payload: Payload) -> int:
    """Bytes of disk it takes at most."""
    live = image.liveos
    with _opened(image) as root:
        tables = root.superblock.bytes_used - root.superblock.inode_table  # which come anew behind the new data
    return live.iso.size + 2 * payload.size + tables + _MARGIN


@dataclass(frozen=True, kw_only=True, slots=True)
class _Root:
    """A root filesystem to be: the image's bytes from the first on, but for `head`, and `tail` behind them."""

    kept: int  # bytes of the image's, those that `head` takes the place of included
    head: bytes
    tail: bytes = b""

    @property
    def size(self) -> int:
        return self.kept + len(self.tail)


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
    """Write the ISO with the payload grafted on its root filesystem; see Injector."""
    with console.step("Grafting the payload on the root filesystem") as step:
        removals = [path.rstrip("/") for path in payload.replaces]
        root = _grafted(image, additions=list(_additions(image, payload)), removals=removals)
        step.note(f"{image.liveos.span.size:,} → {root.size:,} bytes")
    removed = updates.previous_paths(image, payload.replaces)
    return _write(image, root, removed=removed, target=target, work=work, console=console)


def remove_payload(image: LiveImage, *, target: Target, work: Path, console: Console) -> Injected:
    """Write the ISO without what this way put in: a graft is cut off, and the squashfs is byte for byte what it was.

    Of a root filesystem that was rewritten (`--compressor`) the payload's own paths go, and folders made for them stay.
    """
    with _opened(image) as root:
        before = original(root)
    if before:
        former = _Root(kept=before.source.size, head=before.superblock.pack())
    else:
        former = _grafted(image, additions=[], removals=[path.strip("/") for path in OWNED])
    return _write(image, former, removed=(), target=target, work=work, console=console)


def copy_original(image: LiveImage, target: Path) -> None:
    """Write the root filesystem as it was before a graft, if it has one, to the new file `target`. Raises OSError."""
    live = image.liveos
    with _opened(image) as root:
        before = original(root) or root
        copy_span(live.iso.file, target, offset=live.span.offset, size=before.source.size)
    with target.open("r+b") as file:
        file.write(before.superblock.pack())


def write_around(
    image: LiveImage, root: Path, target: Path, *, removed: Sequence[str], work: Path, advance: Advance
) -> None:
    """Write the ISO to `target` with the squashfs `root` for its root filesystem. Raises WorkError and OSError."""
    size = root.stat().st_size
    place = _frame(image, target, size=size, removed=removed, work=work)
    with root.open("rb", buffering=0) as file:
        copy_into(file, target, at=place, size=size, advance=advance)


def _opened(image: LiveImage) -> Image:
    span = image.liveos.span
    return Image.open(image.liveos.iso.path, offset=span.offset, size=span.size)


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
    with _opened(image) as root:
        graft = Graft(root, additions=additions, removals=removals)
        kept = graft.base.source.size
        tail = _Tail(position=graft.start, data=bytearray(graft.start - kept))
        head = graft.write(tail)
        return _Root(kept=kept, head=head, tail=bytes(tail.data))


@dataclass(slots=True)
class _Tail:
    """What a graft adds, in memory: the payload compressed, and the tables; some thousandths of an image."""

    position: int
    data: bytearray

    def put(self, data: bytes) -> int:
        self.data += data
        self.position += len(data)
        return self.position - len(data)


def _write(
    image: LiveImage, root: _Root, *, removed: Sequence[str], target: Target, work: Path, console: Console
) -> Injected:
    live, output = image.liveos, target.place(target.iso)
    with console.step("Writing the ISO around it"):
        place = _frame(image, output, size=root.size, removed=removed, work=work)
        with output.open("r+b", buffering=0) as file:
            file.seek(place + root.kept)
            write_all(file, root.tail)
    kept = Span(offset=live.span.offset, size=root.kept)
    with console.step("Copying the root filesystem, and hashing", total=root.kept) as step:
        incoming, outgoing = splice(live.iso.file, output, span=kept, at=place, head=root.head, advance=step.advance)
    return Injected(files={target.iso: outgoing}, inputs={image.iso_path: incoming})


def _frame(image: LiveImage, output: Path, *, size: int, removed: Sequence[str], work: Path) -> int:
    """Write the ISO with room for a root filesystem of `size` bytes at its end, and give where that begins."""
    live = image.liveos
    # what describes the image's length elsewhere, or a file in pieces, is left to xorriso, which then writes zeros
    whole = xorriso.is_hybrid(live.iso) or size >= xorriso.BIG_FILE
    stand_in = work / "root.img"
    with stand_in.open("xb") as file:
        file.truncate(size if whole else min(size, _STAND_IN))
    placed = Placed(path=live.root.path, source=stand_in, mode=live.root.mode)
    xorriso.rewrite(live.iso, output, removed=removed, placed=[placed], last=True, mtime=image.mtime, work=work)
    stand_in.unlink()
    return grow_last_file(output, name=live.root.path, size=size)
