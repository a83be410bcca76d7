"""One of the requests by which the chunks of an artifact are downloaded side by side, and how fast it is."""

from __future__ import annotations

import math
from dataclasses import field

from pxe_fetch.contract.record import mutable_record
from pxe_fetch.download.mirrors import Mirror
from pxe_fetch.download.partfile import Digester
from pxe_fetch.errors import FetchError

_WINDOW = 1.0  # seconds over which the rate of a stream is measured


@mutable_record
class PartialChunk:
    """The first bytes of a chunk; the others are still missing."""

    digester: Digester = field(default_factory=Digester)  # of these bytes
    length: int = 0
    origins: frozenset[str] = frozenset()  # the mirrors that sent them


@mutable_record
class Stream:
    """One request for consecutive chunks. It advances `position`; another stream may take the last chunks away."""

    mirror: Mirror
    position: int  # offset of the next byte to write
    end: int  # the chunk after the last one
    partial: PartialChunk | None  # the bytes, hashed, of the chunk at `hashed`
    since: float  # on the clock: when it was assigned
    hashed: int = 0  # offset of the next byte to hash, at most `position`
    filled_to: int = 0  # offset up to which bytes are being received now
    received: int = 0  # bytes
    last_received: float = 0.0  # on the clock, or `since`
    window_start: float = 0.0  # on the clock: start of the window in which the rate is measured
    window_received: int = 0  # bytes, since then
    is_ranged: bool = False  # it has exactly the requested range
    progressed: bool = False  # it delivered new bytes that have not turned out wrong
    had_wrong_chunk: bool = False  # whose bytes were all from this mirror
    failure: FetchError | None = None  # set to end it: a wrong chunk
    overtaken: FetchError | None = None  # set to end it at once

    def __post_init__(self) -> None:
        self.hashed = self.filled_to = self.position
        self.last_received = self.window_start = self.since

    def advance(self, count: int, *, now: float) -> None:
        """Count `count` received bytes."""
        if now - self.window_start >= _WINDOW:
            self.window_start, self.window_received = self.last_received, 0
        self.position += count
        self.received += count
        self.window_received += count
        self.last_received = now

    def seconds_for(self, count: int, *, now: float) -> float:
        """Seconds that `count` bytes take at the current rate; inf if nothing arrives."""
        if now - self.last_received >= _WINDOW:
            return math.inf
        seconds, received = now - self.window_start, self.window_received
        if seconds < _WINDOW / 2:
            seconds, received = now - self.since, self.received
        return count * seconds / received if received else math.inf
