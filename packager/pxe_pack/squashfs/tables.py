"""Lookup tables: fixed-size records in metadata blocks, followed by a list of the blocks' positions.

Format: doc/format.adoc "Storing Lookup Tables". The fragment table (16 bytes per record), the export table (8), the
owner table (4) and the xattr table (16) are of this kind. The positions are absolute: when a table moves, it gets a new
list, while its blocks stay unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from pxe_pack.image.limits import Limit
from pxe_pack.squashfs.compress import Codec
from pxe_pack.squashfs.errors import corrupt
from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.squashfs.metadata import decode, encode, header_size
from pxe_pack.squashfs.superblock import METADATA_SIZE

_POSITION: Final = struct.Struct("<Q")


class Table:
    """The lookup table whose list of positions is at `listed` in the image, with `count` records of `size` bytes.

    Its blocks end at `end`, which is where the list begins, except in the xattr table, which has a header in between.
    """

    def __init__(
        self, source: FileSlice, codec: Codec, *, listed: int, end: int, count: int, size: int, name: str
    ) -> None:
        """Raises SquashfsError if the positions are invalid (the kernel's checks, fs/squashfs/id.c and others).

        Raises LimitError if there are too many records.
        """
        self._source, self._codec, self.name = source, codec, name
        self.count, self.size = count, size
        self._per_block = METADATA_SIZE // size
        blocks = -(-count // self._per_block)
        raw = source.read(listed, blocks * _POSITION.size)
        Limit.SQUASHFS_RECORDS.check(count)
        self.positions = [position for (position,) in _POSITION.iter_unpack(raw)]
        edges = [*self.positions, end]
        for here, after in pairwise(edges):
            if not 0 < after - here <= METADATA_SIZE + 2:
                raise corrupt(f"the blocks of its {name} table are not consecutive")
        self.start = edges[0]
        self._last: tuple[int, bytes] = (-1, b"")

    def __getitem__(self, index: int) -> bytes:
        """Record `index`. Raises SquashfsError if there is none."""
        if not 0 <= index < self.count:
            raise corrupt(f"a reference points to entry {index} of the {self.name} table, which has {self.count}")
        block, entry = divmod(index, self._per_block)
        if self._last[0] != block:
            self._last = block, self._decoded(block)
        return self._last[1][entry * self.size : (entry + 1) * self.size]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(self.count))

    def _raw(self, block: int) -> bytes:
        position = self.positions[block]
        size = header_size(self._source.read(position, 2), at=position)
        return self._source.read(position, 2 + size)

    def _decoded(self, block: int) -> bytes:
        data = decode(self._raw(block), self._codec, at=self.positions[block])
        if len(data) != self._length(block):
            raise corrupt(f"block {block} of its {self.name} table has {len(data)} bytes, not {self._length(block)}")
        return data

    def _length(self, block: int) -> int:
        return self.size * min(self._per_block, self.count - block * self._per_block)

    def grown(self, *, more: bytes, changes: Mapping[int, bytes], codec: Codec | None) -> Iterator[bytes]:
        """The blocks of the table with the records in `changes` (index -> record) replaced and `more` appended.

        Blocks without changes are returned as stored.
        """
        touched = {index // self._per_block for index in changes}
        rest = b""
        for block in range(len(self.positions)):
            short = block == len(self.positions) - 1 and self._length(block) < METADATA_SIZE
            if block not in touched and not (short and more):
                yield self._raw(block)
                continue
            data = bytearray(self._decoded(block))
            for index, record in changes.items():
                if index // self._per_block == block:
                    at = index % self._per_block * self.size
                    data[at : at + self.size] = record
            if short:
                rest = bytes(data)
            else:
                yield encode(bytes(data), codec)
        yield from pieces(rest + more, codec)


def pieces(data: bytes, codec: Codec | None) -> Iterator[bytes]:
    """`data` as metadata blocks."""
    for at in range(0, len(data), METADATA_SIZE):
        yield encode(data[at : at + METADATA_SIZE], codec)


def listing(positions: list[int]) -> bytes:
    """The list of block positions that follows a table."""
    return b"".join(map(_POSITION.pack, positions))
