"""Waiting for what another thread or process is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds for what has to happen on a busy machine; how long it took is not what is tested


def until(is_so: Callable[[], object], *, within: float = PATIENCE, every: float = 0.005) -> None:
    """Return as soon as `is_so()`, asked `every` so many seconds; AssertionError if it is not `within` so many."""
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end, f"it is not so within {within} s"
        time.sleep(every)
