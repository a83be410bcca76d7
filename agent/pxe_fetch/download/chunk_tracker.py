"""Which chunks of an artifact are verified, which are being downloaded, and which are missing.

Not thread-safe: the caller holds a lock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import field
from typing import Protocol

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.contract.record import mutable_record
from pxe_fetch.download.mirrors import Mirror
from pxe_fetch.errors import FetchError

_WINDOW = 1.0  # seconds over which the rate of a stream is measured
_MISSING, _RESERVED, _VERIFIED = range(3)


class _Hash(Protocol):
    """A hash object of hashlib."""

    def update(self, data: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


@mutable_record
class PartialChunk:
    """The first bytes of a chunk; the others are still missing."""

    length: int
    hash: _Hash  # of these bytes
    origins: frozenset[str]  # the mirrors that sent them


OnChunk = Callable[[int, bytes, frozenset[str]], None]


@mutable_record
class ChunkDigester:
    """The digests of consecutive chunks that one stream downloads."""

    chunk_map: ChunkMap
    position: int  # offset of the next bytes
    chunk: PartialChunk | None  # those before it in the same chunk
    origin: str
    on_chunk: OnChunk  # gets each whole chunk: its index, its digest, the mirrors that it came from

    def update(self, data: memoryview) -> None:
        """Hash `data`, which follows what was hashed before."""
        while data:
            index = self.chunk_map.at(self.position)
            end = self.chunk_map.start(index + 1)
            here, data = data[: end - self.position], data[end - self.position :]
            chunk = self.chunk = self.chunk or PartialChunk(length=0, hash=hashlib.sha256(), origins=frozenset())
            chunk.hash.update(here)
            chunk.length += len(here)
            chunk.origins |= {self.origin}
            self.position += len(here)
            if self.position == end:
                self.chunk = None
                self.on_chunk(index, chunk.hash.digest(), chunk.origins)


@mutable_record
class ChunkRange:
    """Consecutive chunks that one stream downloads. It advances `position`; another stream may take the end away."""

    position: int  # offset of the next byte
    end: int  # the chunk after the last one
    filled_to: int  # offset up to which bytes are being received now
    partial: PartialChunk | None = None  # the bytes received of the chunk at `position`
    since: float = 0.0  # on the clock: when it was reserved
    received: int = 0  # bytes, since then
    last_received: float = 0.0  # on the clock, or when it was reserved
    window_start: float = 0.0  # on the clock: start of the window in which the rate is measured
    window_received: int = 0  # bytes, since then

    def __post_init__(self) -> None:
        self.last_received = self.window_start = self.since

    def advance(self, count: int, *, now: float) -> None:
        """Count `count` received bytes."""
        if now - self.window_start >= _WINDOW:
            self.window_start, self.window_received = self.last_received, 0
        self.position += count
        self.received += count
        self.window_received += count
        self.last_received = now

    def seconds_left(self, bytes_left: int, *, now: float) -> float:
        """Seconds that `bytes_left` take at the current rate; inf if nothing arrives."""
        if now - self.last_received >= _WINDOW:
            return math.inf
        seconds, received = now - self.window_start, self.window_received
        if seconds < _WINDOW / 2:
            seconds, received = now - self.since, self.received
        return bytes_left * seconds / received if received else math.inf


@mutable_record
class Assignment:
    """One request: a range of chunks, and the mirror to request it from."""

    mirror: Mirror
    range: ChunkRange
    partial_length: int  # bytes of the range's first chunk that were present before
    is_ranged: bool = False  # with exactly the requested range
    progressed: bool = False  # it delivered new bytes that have not turned out wrong
    had_wrong_chunk: bool = False  # whose bytes were all from this mirror
    failure: FetchError | None = None  # set to end its stream: a wrong chunk
    overtaken: FetchError | None = None  # set to end its stream at once


@mutable_record
class ChunkTracker:
    """The state of each chunk of `chunk_map`; at first all are missing."""

    chunk_map: ChunkMap
    remaining: int = field(init=False)  # chunks that are not verified yet
    _states: bytearray = field(init=False)
    _partial: dict[int, PartialChunk] = field(default_factory=dict)  # of missing chunks

    def __post_init__(self) -> None:
        self._states = bytearray(self.chunk_map.number)
        self.remaining = self.chunk_map.number

    def is_verified(self, index: int) -> bool:
        """Whether the chunk has been received and verified."""
        return self._states[index] == _VERIFIED

    def missing(self) -> int:
        """The number of chunks that no stream has reserved or verified."""
        return self._states.count(_MISSING)

    def mark_verified(self, index: int) -> None:
        """Record that the chunk has been received and verified."""
        if self._states[index] != _VERIFIED:
            self._states[index] = _VERIFIED
            self.remaining -= 1

    def mark_missing(self, index: int) -> None:
        """Record that the chunk was wrong: all of it is missing again."""
        self._states[index] = _MISSING

    def keep_partial(self, index: int, partial: PartialChunk) -> None:
        """Record that the part file has the first bytes of a missing chunk."""
        self._partial[index] = partial

    def first_missing(self, *, start: int = 0, without: Collection[int] = ()) -> tuple[int, int] | None:
        """The first run of missing chunks from `start` on without any of `without`: its first, and the one after it."""
        while (first := self._states.find(_MISSING, start)) >= 0:
            if first in without:
                start = first + 1
                continue
            ends = [end for state in (_RESERVED, _VERIFIED) if (end := self._states.find(state, first)) >= 0]
            end = min(ends, default=len(self._states))
            # Only the first chunk of a range may be partial, so the range ends before the next partial one.
            return first, min((index for index in (*without, *self._partial) if first < index < end), default=end)
        return None

    def reserve(self, first: int, end: int, *, now: float) -> ChunkRange:
        """Reserve the missing chunks from `first` up to `end`; the range starts at the first missing byte."""
        self._states[first:end] = bytes((_RESERVED,)) * (end - first)
        partial = self._partial.pop(first, None)
        position = self.chunk_map.start(first) + (partial.length if partial else 0)
        return ChunkRange(position=position, end=end, filled_to=position, partial=partial, since=now)

    def split(self, chunk_range: ChunkRange, *, now: float) -> ChunkRange | None:
        """Take the second half of the chunks that `chunk_range` has not begun; None if there are none."""
        not_begun = chunk_range.end - self.chunk_map.at(chunk_range.filled_to + self.chunk_map.chunk - 1)
        middle = chunk_range.end - (not_begun + 1) // 2
        if middle >= chunk_range.end:
            return None
        end, chunk_range.end = chunk_range.end, middle
        start = self.chunk_map.start(middle)
        return ChunkRange(position=start, end=end, filled_to=start, since=now)

    def release(self, chunk_range: ChunkRange) -> None:
        """Record that the range's stream has ended: chunks not received are missing again; a partial one is kept."""
        if chunk_range.position >= self.chunk_map.start(chunk_range.end):
            return
        first = self.chunk_map.at(chunk_range.position)
        self._states[first : chunk_range.end] = bytes((_MISSING,)) * (chunk_range.end - first)
        if chunk_range.partial and chunk_range.partial.length:
            self._partial[first] = chunk_range.partial
