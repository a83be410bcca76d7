"""The bytes of one stream, hashed in their order and told chunk by chunk."""

from __future__ import annotations

import hashlib
from typing import Protocol

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.download.chunk_tracker import PartialChunk


class OnChunk(Protocol):
    """Is told that a chunk's last byte has come."""

    def __call__(self, index: int, *, digest: bytes, sources: frozenset[str]) -> None:
        """The chunk `index`, of bytes that `sources` gave, has this digest."""


class ChunkHasher:
    """A digest as transfer.intake.HashPipeline takes one, that begins anew with each chunk."""

    def __init__(
        self, pieces: ChunkMap, *, at: int, beginning: PartialChunk | None, source: str, landed: OnChunk
    ) -> None:
        """The bytes to come begin at the offset `at`; those before it in the same chunk are the `beginning`."""
        self._pieces = pieces
        self._at = at
        self._source = frozenset((source,))
        self._landed = landed
        self._sources = self._source | beginning.sources if beginning else self._source
        self._hash = beginning.hash if beginning else hashlib.sha256()
        self._length = beginning.length if beginning else 0  # of the current chunk

    def update(self, data: memoryview) -> None:
        """Take `data` in, which follows what was taken in before."""
        while data:
            index = self._pieces.at(self._at)
            end = self._pieces.start(index + 1)
            piece, data = data[: end - self._at], data[end - self._at :]
            self._hash.update(piece)
            self._at += len(piece)
            self._length += len(piece)
            if self._at == end:
                digest, sources = self._hash.digest(), self._sources
                self._hash, self._sources, self._length = hashlib.sha256(), self._source, 0
                self._landed(index, digest=digest, sources=sources)

    def rest(self) -> PartialChunk | None:
        """The beginning of the chunk that is not whole yet; None where there is none."""
        if not self._length:
            return None
        return PartialChunk(length=self._length, hash=self._hash, sources=self._sources)
