"""Chunk digests of local artifacts: which files get them, the chunk size, and how they are computed.

The reasons are in docs/decisions/0013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pxe_fetch.contract.chunks import LARGEST, LINE, MOST, count, fitting
from pxe_fetch.contract.model import NO_CHUNKS, Chunks
from pxe_fetch.contract.quantity import show_size

CHUNKED_FROM = 32 << 20  # bytes; smaller files get chunk digests only on request
DEFAULT_SIZE = 4 << 20  # bytes in a chunk


class ChunkSizeError(ValueError):
    """The chunk size that artifacts request for a file is not possible."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def chunk_size(size: int, requested_chunks: Iterable[Chunks | None]) -> int | None:
    """The bytes in each chunk of a file of `size` bytes; None if the file gets no list of chunk digests.

    `requested_chunks`: the `chunks` key of each artifact that has this file as its source.

    Raises ChunkSizeError; its text is a sentence without its subject, the file's name.
    """
    requested_chunks = list(requested_chunks)
    sizes = sorted({request.size for request in requested_chunks if request and request != NO_CHUNKS})
    if not size:
        return None
    if not sizes:
        usual = fitting(size, least=DEFAULT_SIZE)
        return usual if None in requested_chunks and size >= CHUNKED_FROM and usual <= LARGEST else None
    if len(sizes) > 1:
        shown = " and ".join(map(show_size, sizes))
        raise ChunkSizeError(
            f"has artifacts with chunks of {shown}", hint="give one size: all artifacts share one list of digests"
        )
    if (number := count(size, chunk=sizes[0])) > MOST:
        hint = f"`chunks: {{size: {show_size(fitting(size))}}}` or more"
        raise ChunkSizeError(f"would have {number} chunks; the limit is {MOST}", hint=hint)
    return sizes[0]


def list_size(size: int, *, chunk: int | None) -> int:
    """Bytes in the list of chunk digests for a file of `size` bytes; 0 if `chunk` is None."""
    return LINE * count(size, chunk=chunk) if chunk else 0


class ChunkDigests:
    """Computes the SHA-256 of each chunk of `size` bytes. `update` takes the file's bytes in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._open = hashlib.sha256()
        self._missing = size  # bytes of the open chunk
        self._closed = bytearray()

    def update(self, data: bytes | memoryview) -> None:
        """Hash the file's next bytes."""
        rest = memoryview(data)
        while rest:
            part, rest = rest[: self._missing], rest[self._missing :]
            self._open.update(part)
            self._missing -= len(part)
            if not self._missing:
                self._close()

    def _close(self) -> None:
        self._closed += self._open.digest()
        self._open = hashlib.sha256()
        self._missing = self.size

    def finish(self) -> bytes:
        """Return the digests, 32 bytes each. Call it after the last `update`."""
        if self._missing < self.size:
            self._close()
        return bytes(self._closed)
