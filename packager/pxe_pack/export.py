"""Fills a layout: boot loaders, GRUB's files, kernels, the ISO, artifacts, and the image's additional files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from pxe_fetch.contract.chunks import listed
from pxe_fetch.contract.model import Chunks
from pxe_fetch.contract.problem import Problem, printable
from pxe_pack import folder_archive
from pxe_pack.additional_files import AdditionalFiles
from pxe_pack.artifacts import Exported, LocalFile
from pxe_pack.chunks import ChunkDigests, chunk_size
from pxe_pack.hashing import Advance, copy_hashed, copy_whole
from pxe_pack.image.bootloader import BootLoaders
from pxe_pack.image.grub.config import GRUB_DIR
from pxe_pack.image.iso.reader import Iso
from pxe_pack.image.liveos import LiveImage
from pxe_pack.layout.kernel_arguments import ISO_SHA256, with_iso_digest, without_arguments
from pxe_pack.layout.layout import Layout, find_layout
from pxe_pack.layout.manifest import FOLDER, Kind
from pxe_pack.payload import Entry, Payload
from pxe_pack.tools import WorkError
from pxe_pack.trust.signed_boot import SignedBoot

GRUBENV = "# GRUB Environment Block\n".ljust(1024, "#")  # GRUB manual, 15 "The GRUB environment block"


def export_artifacts(
    layout: Layout, files: Iterable[LocalFile], *, base: str, advance: Advance
) -> dict[LocalFile, Exported]:
    """Copy the local artifacts into the layout and write their lists of chunk digests.

    Raises OSError, and WorkError if a file or folder changes while it is packed.
    """
    return {file: _export_artifact(layout, file, base=base, advance=advance) for file in files}


def _export_artifact(layout: Layout, file: LocalFile, *, base: str, advance: Advance) -> Exported:
    path = f"{FOLDER}/{file.name}"
    digests = ChunkDigests(file.chunk) if file.chunk else None
    consumers = [digests.update] if digests else []
    target = layout.place(path)
    if file.folder:
        pieces = folder_archive.archive(file.source, planned=file.folder, advance=advance)
        content = copy_hashed(pieces, target, consumers=consumers)
    else:
        with file.source.open("rb", buffering=0) as source:
            before = os.fstat(source.fileno())
            content = copy_whole(source, target, advance=advance, consumers=consumers)
            after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or content.size != file.size:
            raise _changed(file)
    layout.record(path, content, kind=Kind.ARTIFACT)
    # only now is it known whether an archive is large enough for a list
    is_listed = digests and chunk_size(content.size, file.requested_chunks)
    chunks = _export_list(layout, file, digests, base=base) if digests and is_listed else None
    return Exported(path=target, content=content, chunks=chunks)


def _changed(file: LocalFile) -> WorkError:
    message = f"{printable(str(file.source))} changed while it was packed"
    hint = "pack again when nothing writes to it"
    return WorkError(Problem(reference="source-changed", message=message, hint=hint))


def _export_list(layout: Layout, file: LocalFile, digests: ChunkDigests, *, base: str) -> Chunks:
    written = layout.write(f"{FOLDER}/{file.list_name}", [listed(digests.finish()).encode()], kind=Kind.ARTIFACT)
    return Chunks(size=digests.size, mirrors=((file.list_url(base),),), digests=bytes.fromhex(written.sha256))


def export_additional(layout: Layout, additional: AdditionalFiles, *, advance: Advance) -> None:
    """Copy the image's additional files into the layout. Raises OSError."""
    for path, file in additional.files.items():
        layout.write(path, _counted(file.pieces(), advance), kind=Kind.ADDITIONAL)


def _counted(pieces: Iterable[bytes], advance: Advance) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        advance(len(piece))


def export_boot_files(
    layout: Layout, image: LiveImage, loaders: BootLoaders, *, iso_sha256: str | None, signed: SignedBoot | None
) -> None:
    """Write the boot loaders, kernels, initrds and GRUB's files into the layout, without GRUB if the boot is `signed`.

    `iso_sha256` is for nodes that verify the ISO. Raises OSError.
    """
    for name, file in {**({} if signed else loaders.files), **image.boot_files()}.items():
        if name not in layout.files:
            layout.write(name, file.pieces())
    for name, text in ({} if signed else loaders.redirector).items():
        layout.write(name, [text.encode()])
    if f"{GRUB_DIR}/grubenv" not in layout.files:
        layout.write(f"{GRUB_DIR}/grubenv", [GRUBENV.encode()])
    grub_cfg = image.grub_cfg(loaders.grub)
    earlier = None if isinstance(image.media, Iso) else find_layout(image.media.path)
    if earlier and earlier.added_arguments:  # of where that layout was moved to, and what was pinned for it
        grub_cfg = without_arguments(grub_cfg, earlier.added_arguments)
    if iso_sha256 and layout.urls.boot_url:
        grub_cfg = with_iso_digest(grub_cfg, boot_url=layout.urls.boot_url, sha256=iso_sha256)
    elif ISO_SHA256 in grub_cfg:  # of an earlier pack
        grub_cfg = without_arguments(grub_cfg, [ISO_SHA256])
    layout.write_scripts(grub_cfg, program=signed.programs[0] if signed else "")


def payload_document(payload: Payload) -> list[dict[str, object]]:
    """The files added to the image, for the manifest."""
    return [_entry_document(entry) for entry in payload.entries]


def _entry_document(entry: Entry) -> dict[str, object]:
    mode = f"{stat.S_IMODE(entry.mode):04o}"
    if stat.S_ISDIR(entry.mode):
        return {"path": f"/{entry.path}", "type": "directory", "mode": mode}
    if stat.S_ISLNK(entry.mode):
        return {"path": f"/{entry.path}", "type": "link", "target": entry.target}
    return {"path": f"/{entry.path}", "type": "file", "mode": mode, "size": entry.size}
