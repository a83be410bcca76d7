"""Which chunks of an artifact are here, which are being downloaded, and which are missing.

Nothing here is safe to use from several threads: the caller holds a lock.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from pxe_fetch.chunkmap import ChunkMap
from pxe_fetch.download.verify import PartialChunk

_WINDOW = 2.0  # seconds over which the rate of a stream is measured
_MISSING, _RESERVED, _VERIFIED = range(3)


@dataclass(kw_only=True, slots=True, eq=False)
class ChunkRange:
    """Chunks in a row that one stream downloads. The stream moves `position`; another may take the far end away."""

    position: int  # offset of the byte that comes next
    end: int  # the chunk behind the last one
    filled_to: int  # offset: the bytes up to it are being received right now
    partial: PartialChunk | None = None  # what is here of the chunk that `position` is in
    since: float = 0.0  # on the clock's now(): when it was reserved
    received: int = 0  # bytes, since then
    last_received: float = 0.0  # on the clock, or when it was reserved
    window_start: float = 0.0  # of the last moments, on the clock
    window_received: int = 0  # bytes, since then

    def __post_init__(self) -> None:
        self.last_received = self.window_start = self.since

    def advance(self, count: int, *, now: float) -> None:
        """`count` more bytes came."""
        if now - self.window_start >= _WINDOW:
            self.window_start, self.window_received = self.last_received, 0
        self.position += count
        self.received += count
        self.window_received += count
        self.last_received = now

    def seconds_left(self, bytes_left: int, *, now: float) -> float:
        """How long `bytes_left` take at the rate of the last moments; inf where nothing came."""
        if now - self.last_received >= _WINDOW:
            return math.inf
        seconds, received = now - self.window_start, self.window_received
        if seconds < _WINDOW / 2:
            seconds, received = now - self.since, self.received
        return bytes_left * seconds / received if received else math.inf


@dataclass(kw_only=True, slots=True)
class ChunkTracker:
    """The chunks of `chunk_map`, all of them missing at first."""

    chunk_map: ChunkMap
    active: list[ChunkRange] = field(default_factory=list)
    remaining: int = field(init=False)  # chunks that are not verified yet
    _states: bytearray = field(init=False)
    _partial: dict[int, PartialChunk] = field(default_factory=dict)  # of missing chunks

    def __post_init__(self) -> None:
        self._states = bytearray(self.chunk_map.number)
        self.remaining = self.chunk_map.number

    def is_verified(self, index: int) -> bool:
        """Whether the chunk is here, and right."""
        return self._states[index] == _VERIFIED

    def missing(self) -> int:
        """How many chunks no stream has reserved."""
        return self._states.count(_MISSING)

    def mark_verified(self, index: int) -> None:
        """The chunk is here, and right."""
        if self._states[index] != _VERIFIED:
            self._states[index] = _VERIFIED
            self.remaining -= 1

    def mark_missing(self, index: int) -> None:
        """What came for the chunk was wrong: it is missing again, from its first byte."""
        self._states[index] = _MISSING

    def keep_partial(self, index: int, partial: PartialChunk) -> None:
        """The first bytes of the missing chunk are in the part file."""
        self._partial[index] = partial

    def first_missing(self, *, start: int = 0, without: Collection[int] = ()) -> tuple[int, int] | None:
        """The first missing chunks in a row from `start` on, but for those in `without`: first, and behind the last."""
        while (first := self._states.find(_MISSING, start)) >= 0:
            if first in without:
                start = first + 1
                continue
            ends = [end for state in (_RESERVED, _VERIFIED) if (end := self._states.find(state, first)) >= 0]
            end = min(ends, default=len(self._states))
            # Only at its beginning may a range start within a chunk, so it ends before the next partial one.
            return first, min((index for index in (*without, *self._partial) if first < index < end), default=end)
        return None

    def reserve(self, first: int, end: int, *, now: float) -> ChunkRange:
        """A range of the missing chunks from `first` up to `end`, from the first missing byte on."""
        self._states[first:end] = bytes((_RESERVED,)) * (end - first)
        partial = self._partial.pop(first, None)
        position = self.chunk_map.start(first) + (partial.length if partial else 0)
        return self._activate(ChunkRange(position=position, end=end, filled_to=position, partial=partial, since=now))

    def split(self, chunk_range: ChunkRange, *, now: float) -> ChunkRange | None:
        """Take away the second half of the chunks that `chunk_range` has not begun; None where there are none."""
        not_begun = chunk_range.end - self.chunk_map.at(chunk_range.filled_to + self.chunk_map.chunk - 1)
        middle = chunk_range.end - (not_begun + 1) // 2
        if middle >= chunk_range.end:
            return None
        end, chunk_range.end = chunk_range.end, middle
        start = self.chunk_map.start(middle)
        return self._activate(ChunkRange(position=start, end=end, filled_to=start, since=now))

    def _activate(self, chunk_range: ChunkRange) -> ChunkRange:
        self.active.append(chunk_range)
        return chunk_range

    def release(self, chunk_range: ChunkRange) -> None:
        """The range's stream has ended: the chunks that did not come are missing again; a partial one is kept."""
        self.active.remove(chunk_range)
        if chunk_range.position >= self.chunk_map.start(chunk_range.end):
            return
        first = self.chunk_map.at(chunk_range.position)
        self._states[first : chunk_range.end] = bytes((_MISSING,)) * (chunk_range.end - first)
        if chunk_range.partial and chunk_range.partial.length:
            self._partial[first] = chunk_range.partial
