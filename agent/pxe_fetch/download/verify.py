"""Hash what arrives, as a whole or chunk by chunk, and compare it with the configuration's digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.model import Digest
from pxe_fetch.errors import IntegrityError


class Digester:
    """A running digest. Without an expected one it is a sha256, for the journal."""

    def __init__(self, expected: Digest | None) -> None:
        self.expected = expected
        self._algorithm = expected.algorithm if expected else "sha256"
        self._hash = hashlib.sha512() if self._algorithm == "sha512" else hashlib.sha256()

    def update(self, data: memoryview) -> None:
        """Hash `data`, in the order of the file. hashlib releases the GIL for more than 2 KiB."""
        self._hash.update(data)

    def digest(self) -> Digest:
        """The digest of everything hashed so far."""
        found = self._hash.hexdigest()
        expected = self.expected
        return expected if expected and expected.hex == found else Digest(algorithm=self._algorithm, hex=found)

    def matches(self) -> bool:
        """Whether it is the expected one; False if none is expected."""
        return self.expected is not None and self._hash.hexdigest() == self.expected.hex

    def check(self, *, remark: str = "") -> None:
        """Raise IntegrityError if another one is expected; `remark` is added to the message."""
        found = self.digest()
        if self.expected and found != self.expected:
            raise IntegrityError(
                f"wrong {found.algorithm}: expected {self.expected.hex[:16]}…, found {found.hex[:16]}…{noted(remark)}",
                expected=str(self.expected),
                found=str(found),
            )


def check_size(found: int, *, expected: int | None, remark: str = "") -> None:
    """Raise IntegrityError if the expected size is known and different; `remark` is added to the message."""
    if expected is not None and found != expected:
        raise IntegrityError(
            f"wrong size: expected {expected} bytes, found {found}{noted(remark)}",
            expected=str(expected),
            found=str(found),
        )


def noted(remark: str) -> str:
    """`remark` as the end of a message."""
    return f" ({remark})" if remark else ""


class _Hash(Protocol):
    """A hash object of hashlib."""

    def update(self, data: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(kw_only=True, slots=True)
class PartialChunk:
    """The first bytes of a chunk; the others are still missing."""

    length: int
    hash: _Hash  # of these bytes
    origins: frozenset[str]  # the mirrors that sent them


class OnChunk(Protocol):
    """Called for each chunk when its last byte has arrived."""

    def __call__(self, index: int, *, digest: bytes, origins: frozenset[str]) -> None:
        """The chunk `index`, whose bytes came from `origins`, has this digest."""


class ChunkDigester:
    """The digests of consecutive chunks that one stream downloads."""

    def __init__(
        self, chunk_map: ChunkMap, *, position: int, partial: PartialChunk | None, origin: str, on_chunk: OnChunk
    ) -> None:
        """The next bytes start at the offset `position`; `partial` has those before it in the same chunk."""
        self._map = chunk_map
        self._position = position
        self._origin = frozenset((origin,))
        self._on_chunk = on_chunk
        self._chunk = partial or PartialChunk(length=0, hash=hashlib.sha256(), origins=frozenset())

    def update(self, data: memoryview) -> None:
        """Hash `data`, which follows what was hashed before."""
        while data:
            chunk, index = self._chunk, self._map.at(self._position)
            end = self._map.start(index + 1)
            here, data = data[: end - self._position], data[end - self._position :]
            chunk.hash.update(here)
            chunk.length += len(here)
            chunk.origins |= self._origin
            self._position += len(here)
            if self._position == end:
                self._chunk = PartialChunk(length=0, hash=hashlib.sha256(), origins=frozenset())
                self._on_chunk(index, digest=chunk.hash.digest(), origins=chunk.origins)

    def partial(self) -> PartialChunk | None:
        """The beginning of the current, incomplete chunk; None if it is empty."""
        return self._chunk if self._chunk.length else None
