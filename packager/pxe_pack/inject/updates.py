"""Inject through `updates/`, a tree at the ISO's root that dracut copies onto the new root before switching to it.

Source: dracut, modules.d/90dmsquash-live/apply-live-updates.sh (059 to current): the medium is mounted at
/run/initramfs/live; directories of its updates/ are created with `mkdir -p` (existing ones keep owner and mode), and
everything else is copied with `cp -a`. It sets no SELinux labels.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.hashing import SizeAndDigest, background_hasher, copy_around, splice
from pxe_pack.image.iso.reader import open_iso
from pxe_pack.image.iso.udf import has_udf
from pxe_pack.image.liveos import UPDATES, LiveImage
from pxe_pack.inject import xorriso
from pxe_pack.inject.injector import Injected, Target
from pxe_pack.inject.previous_payload import ungrafted_head
from pxe_pack.inject.xorriso import EDITOR, Placed
from pxe_pack.payload import OWNED, Payload

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
    placed, removed = staged(image, payload, work), previous_paths(image, payload.replaces)
    return _written(image, placed=placed, removed=removed, target=target, work=work, console=console)


def remove_payload(image: LiveImage, *, target: Target, work: Path, console: Console) -> Injected:
    """Write the ISO without this injector's payload, and without a graft on its root filesystem."""
    return _written(image, placed=[], removed=previous_paths(image, OWNED), target=target, work=work, console=console)


def _written(
    image: LiveImage, *, placed: Sequence[Placed], removed: Sequence[str], target: Target, work: Path, console: Console
) -> Injected:
    output = target.place(target.iso)
    incoming, outgoing = _write(image, placed=placed, removed=removed, target=output, work=work, console=console)
    return Injected(files={target.iso: outgoing}, inputs={image.iso_path: incoming})


def _write(
    image: LiveImage, *, placed: Sequence[Placed], removed: Sequence[str], target: Path, work: Path, console: Console
) -> tuple[SizeAndDigest, SizeAndDigest]:
    """Write the ISO to `target`, and return size and digest of the input ISO and of the new one."""
    given = image.liveos.iso
    # a graft is undone in place, by restoring the root filesystem's previous superblock
    head = ungrafted_head(image)
    if xorriso.is_hybrid(given):
        with background_hasher() as hasher, console.step("Rewriting the ISO, because it is a hybrid disk image"):
            incoming = hasher.file(given.path)
            xorriso.rewrite(given, target, removed=removed, placed=placed, mtime=image.mtime, work=work)
            if head:
                _put_head(head, target, path=image.liveos.root.path)
            return incoming.result(), hasher.file(target).result()
    with console.step("Adding updates/ to a copy"):
        # xorriso does not read file contents here, so the root filesystem is copied later, hashed in the same pass
        copy_around(given.file, target, hole=image.liveos.span)
        xorriso.grow(target, removed=removed, placed=placed, mtime=image.mtime, work=work)
    with console.step("Copying and hashing the root filesystem", total=image.liveos.span.size) as step:
        span = image.liveos.span
        return splice(given.file, target, span=span, at=span.offset, head=head, advance=step.advance)


def _put_head(head: bytes, target: Path, *, path: str) -> None:
    """Write `head` over the first bytes of the file `path` in the ISO `target`."""
    with open_iso(target) as written:
        entry = written.entries[path]
    with target.open("r+b") as file:
        file.seek(entry.spans[0].offset)
        file.write(head)


def staged(image: LiveImage, payload: Payload, work: Path) -> list[Placed]:
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
    removed = previous_paths(image, payload.replaces)
    kept = {path for path in image.liveos.iso.entries if not any(f"{path}/".startswith(f"{old}/") for old in removed)}
    made = [Placed(path=folder, source=None, mode=stat.S_IFDIR | 0o755) for folder in sorted(folders - kept)]
    return [*made, *placed]


def previous_paths(image: LiveImage, replaces: Iterable[str]) -> list[str]:
    """The paths a previous pack left below updates/; at boot they would overwrite files of the image."""
    owned = [f"{UPDATES}/{path.strip('/')}" for path in replaces]
    found = [path for path in owned if path in image.liveos.iso.entries]
    others = (
        entry.path
        for entry in image.liveos.iso.below(UPDATES)
        if not entry.is_directory and not any(f"{entry.path}/".startswith(f"{path}/") for path in owned)
    )
    return [UPDATES] if found and not any(others) else found
