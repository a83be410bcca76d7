"""Read an ISO 9660 image without mounting it: its files, their attributes, and their positions in the image.

Numbers stored in both byte orders are read from the little-endian half. `iso.find("liveos/rootfs.img")` returns an
entry; its bytes are read directly from the image, so a filesystem inside the image can be read in place.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pxe_fetch.contract.problem import Problem
from pxe_pack.hashing import Span, span_pieces
from pxe_pack.image.iso import descriptors
from pxe_pack.image.iso.descriptors import DESCRIPTORS_AT, IDENTIFIER, SECTOR
from pxe_pack.image.iso.directories import DirectoryError, read_names
from pxe_pack.image.media import Media, MediaEntry, Names
from pxe_pack.tools import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Iso:
    """An open image, a Media; valid inside the context of `open_iso`."""

    path: Path
    volume_id: str
    volume_size: int  # bytes, from the volume descriptor; never more than `size`
    size: int  # of the file, in bytes
    entries: Names
    file: BinaryIO = field(repr=False)
    input_path: Path  # what the user gave: this image, or what it was built from
    case_sensitive: bool  # as Linux mounts it: names of Joliet are not

    def find(self, path: str) -> MediaEntry | None:
        return self.entries.find(path)

    def below(self, path: str) -> list[MediaEntry]:
        return self.entries.below(path)

    def read(self, entry: MediaEntry, *, offset: int = 0, size: int | None = None) -> bytes:
        wanted = entry.size - offset if size is None else size
        return b"".join(
            os.pread(self.file.fileno(), span.size, span.offset) for span in _slice(entry.spans, offset, wanted)
        )

    def pieces(self, entry: MediaEntry) -> Iterator[bytes]:
        for span in entry.spans:
            yield from span_pieces(self.file, offset=span.offset, size=span.size)


def looks_like_iso(file: BinaryIO) -> bool:
    """Whether `file` has a volume descriptor where an ISO 9660 image has its first one."""
    return os.pread(file.fileno(), 5, DESCRIPTORS_AT + 1) == IDENTIFIER


def is_iso(media: Media, entry: MediaEntry) -> bool:
    """Whether a file on a medium is an ISO 9660 image."""
    return media.read(entry, offset=DESCRIPTORS_AT + 1, size=5) == IDENTIFIER


@contextmanager
def open_iso(path: Path, *, input_path: Path | None = None) -> Iterator[Iso]:
    """Open the image at `path` for reading; `input_path` is what it was built from, by default `path`.

    Raises InputError if it cannot be read, is not an ISO 9660 image, is truncated, or is damaged.
    """
    try:
        # O_NONBLOCK: opening a pipe without a writer would block
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise InputError(
            Problem(
                reference="image-unreadable",
                message=f"cannot read the image {path}: {error.strerror}",
                hint="use a LiveOS: an ISO, a pxe-dir, a pxe-tar, or a root filesystem",
            )
        ) from error
    with file:
        yield _read(path, file, input_path or path)


def _read(path: Path, file: BinaryIO, input_path: Path) -> Iso:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not looks_like_iso(file):
        raise InputError(
            Problem(
                reference="image-not-iso",
                message=f"{path} is not an ISO 9660 image",
                hint="use the ISO of a LiveOS, as Image Customizer writes it with `--output-image-format iso`",
            )
        )
    size = os.fstat(file.fileno()).st_size
    primary = descriptors.primary(file)
    if primary is None:
        raise InputError(_damaged(path, f"it has no primary volume descriptor with sectors of {SECTOR:,} bytes"))
    volume_size = struct.unpack_from("<I", primary, 80)[0] * struct.unpack_from("<H", primary, 128)[0]
    if volume_size > size:
        raise InputError(
            Problem(
                reference="image-truncated",
                message=f"{path} is truncated: it has {size:,} of the {volume_size:,} bytes in its volume descriptor",
                hint="copy or download it again",
            )
        )
    try:
        entries, case_sensitive = read_names(file, size=size, primary=primary, joliet=descriptors.joliet(file))
    except DirectoryError as error:
        raise InputError(_damaged(path, str(error))) from error
    return Iso(
        path=path,
        volume_id=primary[40:72].decode("ascii", "replace").strip(),
        volume_size=volume_size,
        size=size,
        entries=entries,
        file=file,
        input_path=input_path,
        case_sensitive=case_sensitive,
    )


def contiguous(entry: MediaEntry) -> Span | None:
    """The single span that holds all of a file; None if its extents are not adjacent."""
    if not entry.spans:
        return None
    end = entry.spans[0].offset
    for span in entry.spans:
        if span.offset != end:
            return None
        end += span.size
    return Span(offset=entry.spans[0].offset, size=end - entry.spans[0].offset)


def _slice(spans: tuple[Span, ...], offset: int, size: int) -> Iterator[Span]:
    for span in spans:
        start, end = max(offset, 0), min(offset + size, span.size)
        if start < end:
            yield Span(offset=span.offset + start, size=end - start)
        offset -= span.size


def _damaged(path: Path, why: str) -> Problem:
    return Problem(reference="image-damaged", message=f"{path} is a damaged ISO image: {why}", hint="copy it again")
