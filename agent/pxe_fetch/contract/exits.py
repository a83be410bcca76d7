"""The agent's exit codes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a run ended; 64-78 after sysexits(3). The unit restarts on NETWORK, BUG, IO, DEADLINE, INTEGRITY."""

    DONE = 0
    DEGRADED = 2  # done, but an artifact with `required: false` failed
    USAGE = 64
    CONFIG = 65
    NETWORK = 69
    BUG = 70
    CANNOT_CREATE = 73
    IO = 74
    DEADLINE = 75
    INTEGRITY = 76
    REFUSED = 77  # authorisation or policy
    TRUST = 78  # TLS
    NO_ROOM = 79
