"""What can happen while a node boots, as values; all of it arrives in one queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue


@dataclass(frozen=True, kw_only=True, slots=True)
class Serial:
    """Text that the node wrote to its serial console, in pieces of any size."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Requested:
    """The node's request for `url` was answered with `status`; its body is yet to be sent."""

    method: str
    url: str
    status: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """`amount` more bytes of `url` went to the node."""

    url: str
    amount: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The agent's state document, as it posted it: while its run goes on, and in the end."""

    document: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The machine is off: QEMU's exit code, and what it had to say on stderr."""

    code: int
    complaint: str


Event = Serial | Requested | Sent | Report | Ended
Events = SimpleQueue[Event]
