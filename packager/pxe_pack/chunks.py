"""Chunk digests of local artifacts: which files have them, in chunks of what size, and how they are made.

Why they are as they are stands in docs/decisions/0013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pxe_fetch.contract.chunks import LARGEST, LINE, MOST, count, fitting
from pxe_fetch.contract.model import NO_CHUNKS, Chunks
from pxe_fetch.contract.quantity import show_size

FROM = 32 << 20  # bytes; a smaller file has none unless its artifact asks for them
USUAL = 4 << 20  # bytes of a chunk


class ChunkSizeError(ValueError):
    """What artifacts say of a file's chunks cannot be."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def chunk_size(size: int, wishes: Iterable[Chunks | None]) -> int | None:
    """The bytes of a chunk of a file of `size` bytes, whose artifacts say `wishes` of them; None: it has no list.

    Raises ChunkSizeError, whose text follows the file's name.
    """
    wishes = list(wishes)
    sizes = sorted({wish.size for wish in wishes if wish and wish != NO_CHUNKS})
    if not size:
        return None
    if not sizes:
        usual = fitting(size, least=USUAL)
        return usual if None in wishes and size >= FROM and usual <= LARGEST else None
    if len(sizes) > 1:
        shown = " and ".join(map(show_size, sizes))
        raise ChunkSizeError(f"is to have chunks of {shown}", hint="one list serves all its artifacts: name one size")
    if (number := count(size, chunk=sizes[0])) > MOST:
        hint = f"`chunks: {{size: {show_size(fitting(size))}}}` or more"
        raise ChunkSizeError(f"would have {number} chunks, and the most is {MOST}", hint=hint)
    return sizes[0]


def list_size(size: int, *, chunk: int | None) -> int:
    """The bytes of the list of a file of `size` bytes."""
    return LINE * count(size, chunk=chunk) if chunk else 0


class ChunkDigests:
    """The digests of what `update` is given, in chunks of `size` bytes, in the order of the file."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._open = hashlib.sha256()
        self._missing = size  # bytes of the open chunk
        self._closed = bytearray()

    def update(self, data: bytes | memoryview) -> None:
        """Take in the file's next bytes."""
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
        """The digests, 32 bytes each; all of the file has to be there."""
        if self._missing < self.size:
            self._close()
        return bytes(self._closed)
