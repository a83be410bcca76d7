"""Events of a test boot, delivered through one queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue


@dataclass(frozen=True, kw_only=True, slots=True)
class Serial:
    """Text the node wrote to its serial console, in pieces of any size."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Requested:
    """The node requested `url` and got `status`; the body has not been sent yet."""

    method: str
    url: str
    status: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """`amount` more bytes of `url` were sent to the node."""

    url: str
    amount: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The agent's state document as posted, during its run and at the end."""

    document: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The machine is off: QEMU's exit code and stderr."""

    code: int
    complaint: str


Event = Serial | Requested | Sent | Report | Ended
Events = SimpleQueue[Event]
