"""Metadata blocks: every table is cut into pieces of 8 KiB, each compressed by itself behind a 16-bit header.

Format: doc/format.adoc "Packing Metadata"; fs/squashfs/cache.c squashfs_read_metadata(). A record is found by a
*reference*: where its block begins, counted from the table's beginning, and its offset in the block once that is
decompressed (`place << 16 | offset`). Records may run on into the next block. Every block but a table's last holds
exactly 8192 bytes (unsquashfs insists on it).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from pxe_pack.squashfs.compress import Codec, DamagedBlockError
from pxe_pack.squashfs.errors import corrupt
from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.squashfs.superblock import METADATA_SIZE

_HEADER: Final = struct.Struct("<H")
_PLAIN: Final = 0x8000  # in the header: what follows is not compressed
_CACHED: Final = 64  # blocks of a region; 512 KiB
_READ_AHEAD: Final = 1 << 20


def header_size(header: bytes, *, at: int) -> int:
    """How many bytes follow the two of `header`. Raises SquashfsError when no block has so many, or none at all."""
    size = int(_HEADER.unpack(header)[0]) & ~_PLAIN
    if not 0 < size <= METADATA_SIZE:
        raise corrupt(f"the metadata block at {at} says that it has {size} bytes")
    return size


def decode(raw: bytes, codec: Codec, *, at: int) -> bytes:
    """What the block `raw`, header and all, holds: 1 to 8192 bytes."""
    if _HEADER.unpack_from(raw)[0] & _PLAIN:
        return raw[2:]
    try:
        data = codec.decompress(raw[2:], METADATA_SIZE)
    except DamagedBlockError as error:
        raise corrupt(f"the metadata block at {at} does not decompress: {error}") from error
    if not data:
        raise corrupt(f"the metadata block at {at} is empty")
    return data


def encode(data: bytes, codec: Codec | None) -> bytes:
    """`data`, 1 to 8192 bytes, as a block with its header; not compressed where that is no gain or `codec` is None."""
    packed = codec.compress(data) if codec else data
    if len(packed) < len(data):
        return _HEADER.pack(len(packed)) + packed
    return _HEADER.pack(_PLAIN | len(data)) + data


def raw_blocks(source: FileSlice, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Each block from `start` to `end` as it stands, header and all, with its position. Never more than 1 MiB is held.

    Raises SquashfsError when the blocks don't end where they should.
    """
    held, held_at = b"", start
    position = start
    while position < end:
        if position + 2 + METADATA_SIZE > held_at + len(held):
            held, held_at = source.read(position, min(_READ_AHEAD, end - position)), position
        begin = position - held_at
        if len(held) - begin < 2:  # noqa: PLR2004
            raise corrupt(f"the metadata block at {position} is cut short")
        stop = begin + 2 + header_size(held[begin : begin + 2], at=position)
        if stop > len(held):
            raise corrupt(f"the metadata block at {position} runs past the end of its table at {end}")
        yield position, held[begin:stop]
        position = held_at + stop


class Region:
    """The metadata blocks between two positions of an image, decompressed as they are asked for."""

    def __init__(self, source: FileSlice, codec: Codec, *, start: int, end: int, name: str) -> None:
        self.source, self.codec, self.name = source, codec, name
        self.start, self.end = start, end
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def block(self, place: int) -> tuple[bytes, int]:
        """What the block at `place` (bytes from the region's start) holds, and the place of the next."""
        found = self._cache.get(place)
        if found is not None:
            return found
        position = self.start + place
        if not self.start <= position < self.end - 2:
            raise corrupt(f"something refers to byte {place} of the {self.name} table, which is outside of it")
        size = header_size(self.source.read(position, 2), at=position)
        if position + 2 + size > self.end:
            raise corrupt(f"the metadata block at {position} runs past the end of the {self.name} table")
        found = decode(self.source.read(position, 2 + size), self.codec, at=position), place + 2 + size
        self._cache[place] = found
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found

    def cursor(self, reference: int) -> Cursor:
        """A cursor at `reference`."""
        return Cursor(self, reference >> 16, reference & 0xFFFF)


class Cursor:
    """Reads records one after the other, over the ends of blocks."""

    __slots__ = ("_data", "_next", "_offset", "_place", "_region")

    def __init__(self, region: Region, place: int, offset: int) -> None:
        self._region = region
        self._place, self._offset = place, offset
        self._data, self._next = region.block(place)
        if offset > len(self._data):
            raise corrupt(f"something refers to byte {offset} of a {region.name} block of {len(self._data)}")

    @property
    def reference(self) -> int:
        """Where the next byte is."""
        return self._place << 16 | self._offset

    def read(self, size: int) -> bytes:
        """The next `size` bytes. Raises SquashfsError when the table ends before."""
        end = self._offset + size
        found = self._data[self._offset : end]
        if len(found) == size:
            self._offset = end
            return found
        parts = [found]
        missing = size - len(found)
        while missing:
            self._place = self._next
            self._data, self._next = self._region.block(self._place)
            part = self._data[:missing]
            self._offset = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)


class TableAppender:
    """New records behind those of a table whose blocks stay where they are, so that all references to them hold.

    The table's last block is seldom full. It alone is decompressed, filled up and compressed anew: it begins where it
    began, and what was in it keeps its offset.
    """

    def __init__(self, region: Region, codec: Codec | None) -> None:
        """`codec` for the new blocks; None leaves them uncompressed."""
        self._region, self._codec = region, codec
        self._kept = region.start  # up to here the old blocks stay as they are
        self._old_tail = b""
        for position, raw in raw_blocks(region.source, region.start, region.end):
            self._kept, self._old_tail = position, raw
        held = decode(self._old_tail, region.codec, at=self._kept) if self._old_tail else b""
        if len(held) == METADATA_SIZE:
            self._kept, self._old_tail, held = region.end, b"", b""
        self._pending = bytearray(held)
        self._unchanged = True
        self._new: list[bytes] = []
        self._place = self._kept - region.start

    @property
    def reference(self) -> int:
        """Where the next record will be."""
        return self._place << 16 | len(self._pending)

    def write(self, data: bytes) -> int:
        """Add `data`, a record or a part of one, and give its reference."""
        reference = self.reference
        if data:
            self._unchanged = False
        self._pending += data
        while len(self._pending) >= METADATA_SIZE:
            self._close(bytes(self._pending[:METADATA_SIZE]))
            del self._pending[:METADATA_SIZE]
        return reference

    def _close(self, data: bytes) -> None:
        block = encode(data, self._codec)
        self._new.append(block)
        self._place += len(block)

    def blocks(self) -> Iterator[bytes]:
        """The whole table: old blocks as they stand, then the new. Nothing can be written after."""
        if self._unchanged:
            yield from _stretch(self._region.source, self._region.start, self._region.end)
            return
        yield from _stretch(self._region.source, self._region.start, self._kept)
        if self._pending:
            self._close(bytes(self._pending))
            self._pending.clear()
        yield from self._new


def _stretch(source: FileSlice, start: int, end: int) -> Iterator[bytes]:
    for position in range(start, end, _READ_AHEAD):
        yield source.read(position, min(_READ_AHEAD, end - position))
