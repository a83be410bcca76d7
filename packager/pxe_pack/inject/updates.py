"""Inject through `updates/`, a tree at the ISO's root that dracut copies onto the new root before switching to it.

Source: dracut, modules.d/90dmsquash-live/apply-live-updates.sh (059 to current): the medium is mounted at
/run/initramfs/live; directories of its updates/ are created with `mkdir -p` (existing ones keep owner and mode), and
everything else is copied with `cp -a`. It sets no SELinux labels.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.hashing import SizeAndDigest, copy_around, hash_file, splice
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.iso.udf import has_udf
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.inject import xorriso
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.iso_record import append_record
from pxe_pack.inject.trace_iso import trace_grown, trace_rewritten
from pxe_pack.inject.xorriso import EDITOR, Placed
from pxe_pack.payload import Payload

TOOLS: tuple[str, ...] = (EDITOR,)
HOW = "an updates/ tree on the ISO, which dracut copies onto the root at boot"

_TWO_TREES = "the ISO has a UDF file system too, which nodes mount, and additions would be in ISO 9660 only"
_MARGIN = 1 << 20  # bytes, for the directories and padding that xorriso writes


def unsupported_reason(image: LiveImage) -> str | None:
    """Why this injector does not work for `image`; None if it does."""
    if image.live is None:
        return "it has no ISO: its root filesystem is its initrd"
    if has_udf(image.live.iso):
        return _TWO_TREES
    if image.live.case_differs:
        return xorriso.CASE_DIFFERS
    if image.selinux_enforcing:
        return "SELinux is enforcing, and files copied at boot get no labels"
    return no_hook(image)


def no_hook(image: LiveImage) -> str | None:
    """Why some initrd of `image` does not copy updates/ onto the root; None if all of them do."""
    for name, facts in image.initrds.items():
        if not facts.readable:
            return f"pxe-pack cannot look into {name} for the hook: {facts.unread_reason}"
        if not facts.applies_updates:
            return f"{name} lacks the apply-live-updates hook of dracut's dmsquash-live module"
    return None


def disk_space(image: LiveImage, payload: Payload) -> int:
    """Upper bound of the disk space it needs, in bytes."""
    return image.liveos.iso.size + 2 * payload.size + _MARGIN


def inject(image: LiveImage, payload: Payload, *, target: Target, work: Path, console: Console) -> Injected:
    """Write the ISO with an updates/ tree; see Injector."""
    placed, output = _staged(image, payload, work), target.place(target.iso)
    write = _rewrite if xorriso.is_hybrid(image.liveos.iso) else _grow
    return Injected(files={target.iso: write(image, output, placed=placed, work=work, console=console)})


def _grow(image: LiveImage, output: Path, *, placed: Sequence[Placed], work: Path, console: Console) -> SizeAndDigest:
    """Write a copy of the ISO to `output`, to which `placed` is appended."""
    given, span = image.liveos.iso, image.liveos.span
    with console.step("Adding updates/ to a copy"):
        # xorriso does not read file contents here, so the root filesystem is copied later, hashed in the same pass
        copy_around(given.file, output, hole=span)
        xorriso.grow(output, placed=placed, mtime=image.mtime, work=work)
        with output.open("rb") as made:
            pieces = trace_grown(given, made)
        append_record(output, pieces)
    with console.step("Copying and hashing the root filesystem", total=span.size) as step:
        return splice(given.file, output, span=span, at=span.offset, advance=step.advance)


def _rewrite(
    image: LiveImage, output: Path, *, placed: Sequence[Placed], work: Path, console: Console
) -> SizeAndDigest:
    """Write the ISO anew with `placed`: a partition table describes its size."""
    live = image.liveos
    with console.step("Rewriting the ISO, because it is a hybrid disk image"):
        xorriso.rewrite(live.iso, output, placed=placed, mtime=image.mtime, work=work)
        with open_iso(output) as made:
            pieces = trace_rewritten(live.iso, made, root=live.root.path)
        append_record(output, pieces)
    with console.step("Hashing the ISO"):
        return hash_file(output)


def _staged(image: LiveImage, payload: Payload, work: Path) -> list[Placed]:
    """The payload as files below updates/ on the ISO; contents held in memory are written to files below `work`."""
    stage = work / "updates"
    stage.mkdir()
    placed = []
    folders = {UPDATES}
    for number, entry in enumerate(payload.entries):
        path = f"{UPDATES}/{entry.path}"
        parents = path.split("/")[1:-1]
        folders |= {"/".join([UPDATES, *parents[: count + 1]]) for count in range(len(parents))}
        source: Path | None = entry.content if isinstance(entry.content, Path) else stage / f"{number}"
        if stat.S_ISDIR(entry.mode):
            folders.add(path)
            continue
        if stat.S_ISLNK(entry.mode):
            (stage / f"{number}").symlink_to(entry.target)
        elif isinstance(entry.content, bytes):
            (stage / f"{number}").write_bytes(entry.content)
        placed.append(Placed(path=path, source=source, mode=entry.mode))
    new = folders - image.liveos.iso.entries.keys()
    made = [Placed(path=folder, source=None, mode=stat.S_IFDIR | 0o755) for folder in sorted(new)]
    return [*made, *placed]
