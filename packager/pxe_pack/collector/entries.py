"""What the writer is given, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pxe_pack.collector.document import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A report, and what is known of its sender."""

    report: Report
    address: str
    layout: str
    time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """A line of a server's log that is about a node: a stage that it has reached, or trouble at the one it is at."""

    time: float
    mac: str = ""  # at least one of the two is known
    address: str = ""
    stage: str
    text: str
    percent: float | None = None  # of the stage, and what had to be there before
    percent_before: float = 0.0
    version: str = ""  # of a published layout
    starts_boot: bool = False  # nothing but a boot loader or firmware does this
    is_trouble: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """How far a log has been read."""

    path: str
    inode: int
    offset: int


Entry = Received | Sighting | Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A node whose run has just failed."""

    node: int
    key: str
    hostname: str
    stage: str
    exit_code: int | None
    cause: str
    message: str


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of a batch."""

    refused: dict[int, str] = field(default_factory=dict)  # index of an entry -> why it was not written
    failures: list[Failure] = field(default_factory=list)
    size: int = 0  # characters of the documents and texts that were written
