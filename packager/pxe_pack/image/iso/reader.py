"""Read an ISO 9660 image without mounting it: its files, their attributes, and their positions in the image.

Sources: ECMA-119 (volume and directory records), IEEE P1282 and P1281 (Rock Ridge on SUSP). Numbers stored in both byte
orders are read from the little-endian half. `iso.find("liveos/rootfs.img")` returns an entry; its bytes are read
directly from the image, so a filesystem inside the image can be read in place.
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
from pxe_pack.image.iso.rockridge import Attributes, SystemUseError, read_attributes
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.media import Media, MediaEntry, Names
from pxe_pack.tools import InputError

SECTOR = 2048

_VOLUME_DESCRIPTORS_AT = 16 * SECTOR
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")  # escape sequences of its character sets
_DIRECTORY, _ASSOCIATED, _MORE_EXTENTS = 0x02, 0x04, 0x80  # file flags, ECMA-119 9.1.6


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
    case_sensitive: bool  # as Linux mounts it (isofs): only names of Joliet, used without Rock Ridge, are not

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
    return os.pread(file.fileno(), 5, _VOLUME_DESCRIPTORS_AT + 1) == b"CD001"


def is_iso(media: Media, entry: MediaEntry) -> bool:
    """Whether a file on a medium is an ISO 9660 image."""
    return media.read(entry, offset=_VOLUME_DESCRIPTORS_AT + 1, size=5) == b"CD001"


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
    primary = _primary_descriptor(path, file)
    volume_size = struct.unpack_from("<I", primary, 80)[0] * struct.unpack_from("<H", primary, 128)[0]
    if volume_size > size:
        raise InputError(
            Problem(
                reference="image-truncated",
                message=f"{path} is truncated: it has {size:,} of the {volume_size:,} bytes in its volume descriptor",
                hint="copy or download it again",
            )
        )
    reader = _Reader(path=path, file=file, size=size)
    reader.walk_from(primary[156:190])
    return Iso(
        path=path,
        volume_id=primary[40:72].decode("ascii", "replace").strip(),
        volume_size=volume_size,
        size=size,
        entries=reader.entries,
        file=file,
        input_path=input_path,
        case_sensitive=reader.rock_ridge or not has_joliet(file),
    )


def _primary_descriptor(path: Path, file: BinaryIO) -> bytes:
    for descriptor in _descriptors(file):
        if descriptor[0] == _PRIMARY and struct.unpack_from("<H", descriptor, 128)[0] == SECTOR:
            return descriptor
    raise InputError(_damaged(path, "it has no primary volume descriptor with sectors of 2048 bytes"))


def has_joliet(file: BinaryIO) -> bool:
    """Whether the image in `file` has names by Joliet beside those of ISO 9660."""
    return any(one[0] == _SUPPLEMENTARY and one[88:91] in _JOLIET for one in _descriptors(file))


def _descriptors(file: BinaryIO) -> Iterator[bytes]:
    """The volume descriptors, up to the one that ends them."""
    for index in range(64):
        descriptor = os.pread(file.fileno(), SECTOR, _VOLUME_DESCRIPTORS_AT + index * SECTOR)
        if len(descriptor) < SECTOR or descriptor[1:6] != b"CD001" or descriptor[0] == _TERMINATOR:
            return
        yield descriptor


class _Reader:
    """Walks the directory tree of one image."""

    def __init__(self, *, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.file = file
        self.size = size
        self.entries = Names()
        self._seen: set[int] = set()
        self._directories = Usage(Limit.ISO_DIRECTORIES)
        self._attributes_outside = Usage(Limit.ISO_ATTRIBUTES)
        self._count = Usage(Limit.NAMES)  # also of records that add no name
        self._skip = -1  # bytes to skip at the start of each system use field (SUSP SP); -1: no Rock Ridge

    @property
    def rock_ridge(self) -> bool:
        """True if it has Rock Ridge; valid after `walk_from`."""
        return self._skip >= 0

    def walk_from(self, root: bytes) -> None:
        """Read the tree below the root directory's record."""
        span = self._span(root)
        first = next(self._records(span), b"")
        # P1281 5.3: the SP entry stands first in the system use field of the root's "." record
        system_use = _system_use(first)
        if system_use[:2] == b"SP" and system_use[4:6] == b"\xbe\xef":
            self._skip = system_use[6]
        self._walk(span, prefix="", depth=0)

    def _walk(self, directory: Span, *, prefix: str, depth: int) -> None:
        Limit.DEPTH.check(depth)
        if directory.offset in self._seen:
            raise InputError(_damaged(self.path, "its directories form a loop"))
        self._seen.add(directory.offset)
        spans: list[Span] = []
        for record in self._records(directory):
            flags, identifier = record[25], record[33 : 33 + record[32]]
            if identifier in (b"\x00", b"\x01") or flags & _ASSOCIATED:
                continue
            spans.append(self._span(record))
            Limit.ISO_EXTENTS.check(len(spans))
            if flags & _MORE_EXTENTS:
                continue
            attributes = self._attributes(record)
            if attributes.relocated:  # moved here because of the depth limit; it belongs where its CL entry is
                spans = []
                continue
            name = attributes.name or _plain_name(identifier)
            if name in ("", ".", "..") or "/" in name or "\0" in name:  # it would escape its directory
                raise InputError(_damaged(self.path, f"a file in it has the name {name!r}"))
            path = prefix + name
            directory_bit = bool(flags & _DIRECTORY)
            if attributes.child is not None:
                spans, directory_bit = [self._relocated(attributes.child)], True
            self._add(path, spans=tuple(spans), attributes=attributes, is_directory=directory_bit)
            if directory_bit:
                self._walk(spans[0], prefix=f"{path}/", depth=depth + 1)
            spans = []

    def _add(self, path: str, *, spans: tuple[Span, ...], attributes: Attributes, is_directory: bool) -> None:
        if attributes.compressed:
            raise InputError(_damaged(self.path, f"{path} is compressed (zisofs), which is not supported"))
        mode = attributes.mode or (stat.S_IFDIR | 0o555 if is_directory else stat.S_IFREG | 0o444)
        self.entries.add(
            MediaEntry(
                path=path,
                mode=mode,
                size=sum(span.size for span in spans) if stat.S_ISREG(mode) else 0,
                spans=spans,
                uid=attributes.uid,
                gid=attributes.gid,
                target=attributes.target,
            )
        )

    def _attributes(self, record: bytes) -> Attributes:
        if self._skip < 0:
            return Attributes()
        try:
            return read_attributes(_system_use(record)[self._skip :], self._sector_bytes)
        except SystemUseError as error:
            raise InputError(_damaged(self.path, str(error))) from error

    def _relocated(self, sector: int) -> Span:
        """The extent of a relocated directory (P1282 4.1.5.1), whose "." record has the size."""
        return self._span(next(self._records(Span(offset=sector * SECTOR, size=SECTOR)), b""))

    def _records(self, directory: Span) -> Iterator[bytes]:
        Limit.ISO_DIRECTORY.check(directory.size)
        self._directories.add(directory.size)
        data = self._bytes(directory)
        at = 0
        while at < len(data):
            length = data[at]
            if length == 0:  # no record crosses a sector: the rest of this one is padding
                at = (at // SECTOR + 1) * SECTOR
                continue
            record = data[at : at + length]
            if length < 34 or len(record) < length or record[32] + 33 > length:  # noqa: PLR2004  ECMA-119 9.1
                raise InputError(_damaged(self.path, "a directory record is damaged"))
            self._count.add()
            yield record
            at += length

    def _span(self, record: bytes) -> Span:
        if len(record) < 34:  # noqa: PLR2004  ECMA-119 9.1
            raise InputError(_damaged(self.path, "a directory record is damaged"))
        sector, size = struct.unpack_from("<I4xI", record, 2)
        span = Span(offset=(sector + record[1]) * SECTOR, size=size)
        if span.offset + span.size > self.size and span.size:
            raise InputError(_damaged(self.path, "a file in it extends beyond the end"))
        return span

    def _sector_bytes(self, sector: int, offset: int, size: int) -> bytes:
        self._attributes_outside.add(size)
        return self._bytes(Span(offset=sector * SECTOR + offset, size=size))

    def _bytes(self, span: Span) -> bytes:
        data = os.pread(self.file.fileno(), span.size, span.offset)
        if len(data) < span.size:
            raise InputError(_damaged(self.path, "a directory in it is truncated"))
        return data


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


def _system_use(record: bytes) -> bytes:
    if not record:
        return b""
    end = 33 + record[32]
    return record[end + (end & 1) :]


def _plain_name(identifier: bytes) -> str:
    """The name without Rock Ridge, as Linux shows it (isofs, map=normal): lower case, no version, no trailing dot."""
    return identifier.decode("ascii", "replace").split(";")[0].rstrip(".").lower()


def _damaged(path: Path, why: str) -> Problem:
    return Problem(reference="image-damaged", message=f"{path} is a damaged ISO image: {why}", hint="copy it again")
