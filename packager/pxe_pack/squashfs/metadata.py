"""Metadata blocks: every table is split into pieces of 8 KiB, each compressed separately after a 16-bit header.

Format: doc/format.adoc "Packing Metadata"; fs/squashfs/cache.c squashfs_read_metadata(). A *reference* to a record is
the position of its block relative to the table, and the offset in the decompressed block (`place << 16 | offset`).
Records may continue in the next block. Every block except a table's last holds exactly 8192 bytes (unsquashfs requires
it).
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
    """The number of bytes after the 2-byte `header`. Raises SquashfsError if it is 0 or more than a block can have."""
    size = int(_HEADER.unpack(header)[0]) & ~_PLAIN
    if not 0 < size <= METADATA_SIZE:
        raise corrupt(f"the metadata block at {at} has an invalid size of {size} bytes")
    return size


def decode(raw: bytes, codec: Codec, *, at: int) -> bytes:
    """The content of the block `raw`, which includes its header: 1 to 8192 bytes."""
    if _HEADER.unpack_from(raw)[0] & _PLAIN:
        return raw[2:]
    try:
        data = codec.decompress(raw[2:], METADATA_SIZE)
    except DamagedBlockError as error:
        raise corrupt(f"cannot decompress the metadata block at {at}: {error}") from error
    if not data:
        raise corrupt(f"the metadata block at {at} is empty")
    return data


def encode(data: bytes, codec: Codec | None) -> bytes:
    """`data`, 1 to 8192 bytes, as a block with header; uncompressed if that is smaller, or if `codec` is None."""
    packed = codec.compress(data) if codec else data
    if len(packed) < len(data):
        return _HEADER.pack(len(packed)) + packed
    return _HEADER.pack(_PLAIN | len(data)) + data


def raw_blocks(source: FileSlice, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Each block from `start` to `end`, unchanged and with its header, and its position. Holds at most 1 MiB.

    Raises SquashfsError if the blocks do not end exactly at `end`.
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
    """The metadata blocks between two positions of an image, decompressed on demand."""

    def __init__(self, source: FileSlice, codec: Codec, *, start: int, end: int, name: str) -> None:
        self.source, self.codec, self.name = source, codec, name
        self.start, self.end = start, end
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def block(self, place: int) -> tuple[bytes, int]:
        """The content of the block at `place` (bytes from the region's start), and the place of the next block."""
        found = self._cache.get(place)
        if found is not None:
            return found
        position = self.start + place
        if not self.start <= position < self.end - 2:
            raise corrupt(f"a reference points to byte {place} of the {self.name} table, which is outside of it")
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
    """Reads consecutive records, across block boundaries."""

    __slots__ = ("_data", "_next", "_offset", "_place", "_region")

    def __init__(self, region: Region, place: int, offset: int) -> None:
        self._region = region
        self._place, self._offset = place, offset
        self._data, self._next = region.block(place)
        if offset > len(self._data):
            raise corrupt(f"a reference points to byte {offset} of a {region.name} block of {len(self._data)} bytes")

    @property
    def reference(self) -> int:
        """The reference of the next byte."""
        return self._place << 16 | self._offset

    def read(self, size: int) -> bytes:
        """The next `size` bytes. Raises SquashfsError if the table ends before that."""
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
    """Appends records to a table whose blocks stay in place, so that all existing references remain valid.

    Only the table's last block, which is rarely full, is decompressed, filled up and recompressed. It starts where it
    did before, and its old records keep their offsets.
    """

    def __init__(self, region: Region, codec: Codec | None) -> None:
        """`codec` compresses the new blocks; None leaves them uncompressed."""
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
        """The reference of the next record."""
        return self._place << 16 | len(self._pending)

    def write(self, data: bytes) -> int:
        """Append `data`, a record or a part of one, and return its reference."""
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
        """The whole table: old blocks unchanged, then the new ones. Call it last; nothing can be written after it."""
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
