"""The ISO that an image had before it was packed, so that packing replaces, and removing leaves nothing behind.

The record of a packed ISO restores it byte for byte. If someone has changed the ISO since, or an earlier version of
pxe-pack has packed it, there is no such record: then the ISO is written anew without the payload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from pxe_pack.inject.iso_record import IsoRecord, read_record
from pxe_pack.inject.previous_payload import previous_paths
from pxe_pack.inject.recompress import Compression
from pxe_pack.inject.xorriso import Placed
from pxe_pack.payload import owned_paths


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedIso:
    """The ISO of an image that was packed before, and what of it is the payload."""

    image: LiveImage
    record: IsoRecord | None
    paths: Sequence[str]  # below updates/
    initrds: Sequence[str]  # with a payload appended; someone has put them on the ISO
    in_root: bool  # the root filesystem has a payload, as Linux sees it
    in_squashfs: bool  # and so it has without a graft

    @classmethod
    def find(cls, image: LiveImage) -> PackedIso | None:
        """What is packed in the ISO of `image`; None if nothing is."""
        if image.iso is None:
            return None
        record = read_record(image.iso.file)
        found = cls(
            image=image,
            record=record,
            paths=previous_paths(image),
            initrds=_packed_initrds(image),
            in_root=_is_in_root(image, with_graft=True),
            in_squashfs=_is_in_root(image, with_graft=False),
        )
        return found if found.record or found.paths or found.initrds or found.in_root else None

    @property
    def needed_tools(self) -> tuple[str, ...]:
        """The programs that `write_original` runs."""
        if self.record:
            return ()
        return (xorriso.EDITOR, *(recompress.TOOLS if self.in_squashfs else ()))

    @property
    def disk_space(self) -> int:
        """Upper bound of the disk space that the original and temporary files need, in bytes."""
        live = self.image.liveos
        return live.iso.size + (0 if self.record else 3 * live.span.size)

    def write_original(self, target: Path, *, work: Path, console: Console) -> None:
        """Write the ISO without the payload to the new file `target`.

        `work` is a folder for temporary files. Raises WorkError and OSError.
        """
        image = self.image
        iso = image.liveos.iso
        if self.record:
            with console.step("Restoring the ISO as it was before it was packed"):
                self.record.restore(iso.file, target)
            return
        with console.step("Writing the ISO without the payload of an earlier pack") as step:
            placed = self._clean_initrds(work)
            if self.in_root:
                root = self._clean_root(work, advance=step.advance)
                rootfs.write_around(
                    image, root, target, removed=self.paths, placed=placed, work=work, advance=step.advance
                )
                root.unlink()
            else:
                xorriso.rewrite(iso, target, removed=self.paths, placed=placed, mtime=image.mtime, work=work)

    def _clean_initrds(self, work: Path) -> list[Placed]:
        """The initrds without the payload, as files in `work`."""
        placed = []
        originals = self.image.boot_files()
        files = {source: target for target, source in self.image.network.files.items()}
        for number, path in enumerate(self.initrds):
            source = work / f"initrd-{number}.img"
            copy_hashed(originals[files[path]].pieces(), source)
            entry = cast("MediaEntry", self.image.media.find(path))  # it was read from there
            placed.append(Placed(path=entry.path, source=source, mode=entry.mode))
        return placed

    def _clean_root(self, work: Path, *, advance: Advance) -> Path:
        """The root filesystem without the payload, as a file in `work`."""
        root, clean = work / "root.squashfs", work / "clean.squashfs"
        rootfs.copy_original(self.image, root)
        if not self.in_squashfs:
            return root
        superblock = cast("Superblock", self.image.liveos.superblock)  # only a squashfs has a payload in it
        paths = owned_paths(self.image.tree)
        compression = Compression.like(superblock)
        recompress.recompress(
            root, clean, superblock=superblock, compression=compression, left_out=paths, advance=advance
        )
        recompress.compare(root, clean, left_out=paths)
        root.unlink()
        return clean


def _packed_initrds(image: LiveImage) -> list[str]:
    if not isinstance(image.media, Iso):  # they lie beside the ISO
        return []
    return [path for path, facts in image.initrds.items() if facts.appended]


def _is_in_root(image: LiveImage, *, with_graft: bool) -> bool:
    if image.live is None or image.tree is None:
        return False
    tree = replace(image.live.tree, with_graft=with_graft)
    agent = tree.resolve(AGENT.lstrip("/"))
    return agent in tree.stat([agent])


@contextmanager
def original_image(image: LiveImage, packed: PackedIso | None, *, work: Path, console: Console) -> Iterator[LiveImage]:
    """`image` with the ISO that it had before it was `packed`, which is written to the folder `work`."""
    if packed is None:
        yield image
        return
    target = work / "original.iso"
    packed.write_original(target, work=work, console=console)
    with open_iso(target, input_path=image.liveos.iso.input_path) as iso:
        live = find_live(iso, image.network.arguments)
        yield replace(image, live=live, facts=live.facts)
    target.unlink()
