"""Find the bytes of an ISO in the packed ISO that is made of it, for the record that restores it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from pxe_pack.hashing import BLOCK, Span
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import Iso
from pxe_pack.inject.iso_record import HEAD_SIZE, LIMIT, Pieces

_ZEROS: Final = bytes(SECTOR)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Bytes of the original, and where the packed ISO should have them."""

    span: Span
    at: int
    certain: bool = False  # need not be compared


def trace_grown(given: Iso, made: BinaryIO) -> Pieces:
    """The bytes of `given` in `made`, a copy that xorriso has grown: all are in place but for its first 64 KiB.

    Bytes behind the volume may have been overwritten too.
    """
    head = min(HEAD_SIZE, given.size)
    end = max(given.volume_size, head)
    places = [
        _Place(span=Span(offset=0, size=head), at=0),
        _Place(span=Span(offset=head, size=end - head), at=head, certain=True),
        _Place(span=Span(offset=end, size=given.size - end), at=end),
    ]
    return _traced(given, made, places, elsewhere={}, missing=())


def trace_rewritten(given: Iso, made: Iso, *, root: str) -> Pieces:
    """The bytes of `given` in `made`, which xorriso has written: files have moved, directories are new.

    `made` need not have the content of the file `root` yet, which is large.
    """
    places = []
    for path, entry in given.entries.items():
        moved = made.entries.get(path)
        if not entry.is_file or not moved or not entry.spans or not moved.spans:
            continue
        at = moved.spans[0].offset
        for span in entry.spans:
            places += _of_root(span, at) if path == root else [_Place(span=_whole_sectors(span, given.size), at=at)]
            at += span.size
    places.sort(key=lambda place: place.span.offset)
    missing = made.entries[root].spans
    return _traced(given, made.file, places, elsewhere=_unlisted_sectors(made), missing=missing)


def _whole_sectors(span: Span, end: int) -> Span:
    return Span(offset=span.offset, size=min(-(-span.size // SECTOR) * SECTOR, end - span.offset))


def _of_root(span: Span, at: int) -> list[_Place]:
    """The root filesystem without its first sector, in which a graft changes the superblock, and a partial last one."""
    whole = max(span.size // SECTOR - 1, 0) * SECTOR
    return [_Place(span=Span(offset=span.offset + SECTOR, size=whole), at=at + SECTOR, certain=True)] if whole else []


def _unlisted_sectors(made: Iso) -> Mapping[bytes, int]:
    """Sectors outside of all files, such as an appended partition's: digest -> offset. At most LIMIT bytes of them."""
    spans = [span for entry in made.entries.values() if entry.is_file for span in entry.spans if span.size]
    found: dict[bytes, int] = {}
    for gap in _gaps(spans, end=made.size):
        for offset in range(gap.offset, gap.offset + gap.size, SECTOR):
            if len(found) * SECTOR >= LIMIT:
                return found
            found.setdefault(_digest(os.pread(made.file.fileno(), SECTOR, offset)), offset)
    return found


def _digest(sector: bytes) -> bytes:
    return hashlib.sha256(sector).digest()


def _gaps(spans: list[Span], *, end: int) -> Iterator[Span]:
    """The whole sectors before, between and behind `spans`."""
    at = 0
    for span in sorted(spans, key=lambda one: one.offset):
        if span.offset > at:
            yield Span(offset=at, size=span.offset - at)
        at = max(at, -(-(span.offset + span.size) // SECTOR) * SECTOR)
    if end > at:
        yield Span(offset=at, size=end - at)


def _traced(
    given: Iso, made: BinaryIO, places: list[_Place], *, elsewhere: Mapping[bytes, int], missing: Sequence[Span]
) -> Pieces:
    """The pieces of `given`; those outside of `places` where they were, or `elsewhere`, never in a `missing` span."""
    pieces = Pieces()
    at = 0
    for place in [*places, _Place(span=Span(offset=given.size, size=0), at=given.size)]:
        if place.span.offset < at:  # two files share their content
            continue
        gap = Span(offset=at, size=place.span.offset - at)
        for one in (_Place(span=gap, at=gap.offset), place):
            if one.certain:
                pieces.add_found(one.span.size, at=one.at)
            else:
                _compare(one, given.file, made, pieces=pieces, elsewhere=elsewhere, missing=missing)
        at = place.span.offset + place.span.size
    return pieces


def _compare(
    place: _Place,
    given: BinaryIO,
    made: BinaryIO,
    *,
    pieces: Pieces,
    elsewhere: Mapping[bytes, int],
    missing: Sequence[Span],
) -> None:
    for done in range(0, place.span.size, BLOCK):
        if pieces.is_too_large:
            return
        size, at = min(BLOCK, place.span.size - done), place.at + done
        was = os.pread(given.fileno(), size, place.span.offset + done)
        is_there = not any(at < span.offset + span.size and span.offset < at + size for span in missing)
        now = os.pread(made.fileno(), size, at) if is_there else b""
        if was == now:
            pieces.add_found(size, at=at)
            continue
        for start in range(0, size, SECTOR):
            sector = was[start : start + SECTOR]
            if sector == now[start : start + SECTOR]:
                pieces.add_found(len(sector), at=at + start)
            elif sector != _ZEROS and (found := elsewhere.get(_digest(sector))):
                pieces.add_found(len(sector), at=found)
            else:
                pieces.add_bytes(sector)
