"""The ISO that an image had before it was packed, so that packing replaces, and removing leaves nothing behind.

The record of a packed ISO restores it byte for byte. If someone has changed the ISO since, or an earlier version of
pxe-pack has packed it, there is no such record: then the ISO is written anew without the payload.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from pxe_fetch.contract.paths import AGENT
from pxe_pack.console import Console
from pxe_pack.hashing import Advance, copy_hashed
from pxe_pack.image.iso.reader import Iso, open_iso
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.liveroot import find_live
from pxe_pack.image.media import MediaEntry
from pxe_pack.image.squashfs import Superblock
from pxe_pack.inject import recompress, rootfs, xorriso
from pxe_pack.inject.iso_record import read_record
from pxe_pack.inject.previous_payload import previous_paths
from pxe_pack.inject.recompress import Compression
from pxe_pack.inject.xorriso import Placed
from pxe_pack.payload import owned_paths


def is_packed(image: LiveImage) -> bool:
    """Whether there is a payload in the ISO of `image`."""
    if image.iso is None:
        return False
    found = read_record(image.iso.file) or previous_paths(image) or _packed_initrds(image)
    return bool(found) or _is_in_root(image, with_graft=True)


def needed_tools(image: LiveImage) -> tuple[str, ...]:
    """The programs that `write_original` runs."""
    if not is_packed(image) or read_record(image.liveos.iso.file):
        return ()
    return (xorriso.EDITOR, *(recompress.TOOLS if _is_in_root(image, with_graft=False) else ()))


def disk_space(image: LiveImage) -> int:
    """Upper bound of the disk space that `original_image` needs, in bytes."""
    if not is_packed(image):
        return 0
    live = image.liveos
    return live.iso.size + (0 if read_record(live.iso.file) else 3 * live.span.size)


def write_original(image: LiveImage, target: Path, *, work: Path, console: Console) -> None:
    """Write the ISO of `image`, which is packed, without the payload to the new file `target`.

    `work` is a folder for temporary files. Raises WorkError and OSError.
    """
    iso = image.liveos.iso
    if record := read_record(iso.file):
        with console.step("Restoring the ISO as it was before it was packed"):
            record.restore(iso.file, target)
        return
    with console.step("Writing the ISO without the payload of an earlier pack") as step:
        removed, placed = previous_paths(image), _clean_initrds(image, work=work)
        if root := _clean_root(image, work=work, advance=step.advance):
            rootfs.write_around(image, root, target, removed=removed, placed=placed, work=work, advance=step.advance)
            root.unlink()
        else:
            xorriso.rewrite(iso, target, removed=removed, placed=placed, mtime=image.mtime, work=work)


def _packed_initrds(image: LiveImage) -> list[str]:
    """The initrds on the ISO to which a payload was appended; someone has put them there."""
    if not isinstance(image.media, Iso):
        return []
    return [path for path, facts in image.initrds.items() if facts.appended]


def _clean_initrds(image: LiveImage, *, work: Path) -> list[Placed]:
    """Those initrds without the payload, as files in `work`."""
    placed = []
    originals = image.boot_files()
    files = {source: target for target, source in image.network.files.items()}
    for number, path in enumerate(_packed_initrds(image)):
        source = work / f"initrd-{number}.img"
        copy_hashed(originals[files[path]].pieces(), source)
        entry = cast("MediaEntry", image.media.find(path))  # it was read from there
        placed.append(Placed(path=entry.path, source=source, mode=entry.mode))
    return placed


def _clean_root(image: LiveImage, *, work: Path, advance: Advance) -> Path | None:
    """The root filesystem of `image` without a payload, as a file in `work`; None if there is no payload in it."""
    if not _is_in_root(image, with_graft=True):
        return None
    root = work / "root.squashfs"
    rootfs.copy_original(image, root)
    if not _is_in_root(image, with_graft=False):
        return root  # it was in a graft
    clean = work / "clean.squashfs"
    superblock = cast("Superblock", image.liveos.superblock)  # only a squashfs has a payload in it
    paths = owned_paths(image.tree)
    compression = Compression.like(superblock)
    recompress.recompress(root, clean, superblock=superblock, compression=compression, left_out=paths, advance=advance)
    recompress.compare(root, clean, left_out=paths)
    root.unlink()
    return clean


def _is_in_root(image: LiveImage, *, with_graft: bool) -> bool:
    """Whether there is a payload in the root filesystem, as Linux sees it or without a graft."""
    if image.live is None or image.tree is None:
        return False
    tree = replace(image.live.tree, with_graft=with_graft)
    agent = tree.resolve(AGENT.lstrip("/"))
    return agent in tree.stat([agent])


@contextmanager
def original_image(image: LiveImage, *, work: Path, console: Console) -> Iterator[LiveImage]:
    """`image` with the ISO that it had before it was packed, which is written to the folder `work`."""
    if not is_packed(image):
        yield image
        return
    target = work / "original.iso"
    write_original(image, target, work=work, console=console)
    with open_iso(target, input_path=image.liveos.iso.input_path) as iso:
        live = find_live(iso, image.network.arguments)
        yield replace(image, live=live, facts=live.facts)
    target.unlink()
