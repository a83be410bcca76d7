"""Which chunks of an artifact are here, which are being fetched, and which nobody has taken on yet.

Nothing here is safe to use from several threads: the caller holds a lock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from pxe_fetch.chunkmap import ChunkMap

_MISSING, _TAKEN, _HERE = range(3)

Nothing: Collection[int] = ()


class Hash(Protocol):
    """hashlib's."""

    def update(self, data: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(kw_only=True, slots=True)
class PartialChunk:
    """The first bytes of a chunk whose others have not come yet."""

    length: int
    hash: Hash  # of them
    sources: frozenset[str]  # who gave them


@dataclass(kw_only=True, slots=True, eq=False)
class Run:
    """Chunks in a row that one stream has taken on. The stream moves `at`; another may take the far end away."""

    at: int  # offset of the byte that comes next
    end: int  # the chunk behind its last one
    upto: int = 0  # offset: so far it is being filled right now
    beginning: PartialChunk | None = None  # of the chunk that `at` is in
    since: float = 0.0  # on the clock's now(): when it was taken on
    came: int = 0  # bytes, since then


@dataclass(kw_only=True, slots=True)
class ChunkTracker:
    """The chunks of `pieces`, all of them missing at first."""

    pieces: ChunkMap
    active: list[Run] = field(default_factory=list)
    _states: bytearray = field(init=False)
    _beginnings: dict[int, PartialChunk] = field(default_factory=dict)
    left: int = field(init=False)  # chunks that are not here

    def __post_init__(self) -> None:
        self._states = bytearray(self.pieces.number)
        self.left = self.pieces.number

    def is_here(self, index: int) -> bool:
        """Whether the chunk is here, and verified."""
        return self._states[index] == _HERE

    def missing(self) -> int:
        """How many chunks nobody has taken on."""
        return self._states.count(_MISSING)

    def arrived(self, index: int) -> None:
        """The chunk is here, and right."""
        if self._states[index] != _HERE:
            self._states[index] = _HERE
            self.left -= 1

    def spoiled(self, index: int) -> None:
        """What came for the chunk was wrong: it is missing again, from its first byte."""
        self._states[index] = _MISSING

    def begun(self, index: int, beginning: PartialChunk) -> None:
        """Some of the missing chunk's first bytes are in the part file."""
        self._beginnings[index] = beginning

    def gap(self, *, start: int = 0, without: Collection[int] = Nothing) -> tuple[int, int] | None:
        """The first missing chunks in a row from `start` on, but for those in `without`; the second is behind them."""
        while (first := self._states.find(_MISSING, start)) >= 0:
            if first in without:
                start = first + 1
                continue
            ends = [end for kind in (_TAKEN, _HERE) if (end := self._states.find(kind, first)) >= 0]
            end = min(ends, default=len(self._states))
            # A run goes on in the middle of a chunk at its own beginning only, so it ends before the next such chunk.
            return first, min((index for index in (*without, *self._beginnings) if first < index < end), default=end)
        return None

    def take(self, first: int, end: int, *, now: float) -> Run:
        """A run of the missing chunks from `first` up to `end`, from where their first one stops."""
        self._states[first:end] = bytes((_TAKEN,)) * (end - first)
        beginning = self._beginnings.pop(first, None)
        at = self.pieces.start(first) + (beginning.length if beginning else 0)
        run = Run(at=at, end=end, upto=at, beginning=beginning, since=now)
        self.active.append(run)
        return run

    def split(self, run: Run, *, now: float) -> Run | None:
        """The second half of what `run` has still to begin with, as a run of its own; None where that is nothing."""
        untouched = run.end - self.pieces.at(run.upto + self.pieces.chunk - 1)
        middle = run.end - (untouched + 1) // 2
        if middle >= run.end:
            return None
        end, run.end = run.end, middle
        found = Run(at=self.pieces.start(middle), end=end, upto=self.pieces.start(middle), since=now)
        self.active.append(found)
        return found

    def release(self, run: Run) -> None:
        """The run's stream has ended: what is left of it is missing again, but for the beginning of its first chunk."""
        self.active.remove(run)
        first = self.pieces.at(run.at)
        if run.at >= self.pieces.start(run.end):
            return
        for index in range(first, run.end):
            self._states[index] = _MISSING
        if run.beginning and run.beginning.length:
            self._beginnings[first] = run.beginning
