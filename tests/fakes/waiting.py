"""Waiting for what another thread or process is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(is_so: Callable[[], object], *, within: float = 20) -> None:
    """Return as soon as `is_so()`; AssertionError if it is not `within` so many seconds."""
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end, f"it is not so within {within} s"
        time.sleep(0.005)
