"""Bounds the servers' logs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def bound(folder: Path, *, largest: int) -> None:
    """Empty each log in `folder` that has more than `largest` bytes. What it had is in LOG.1 then, instead of before.

    The log is copied and truncated, as by copytruncate of logrotate(8): nginx's workers and dnsmasq are another user,
    who could not open a new file in every folder; they append, so they go on at its beginning. The collector reads what
    it has not seen yet in the copy. Raises OSError.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size <= largest:
            continue
        copy = log.with_name(f"{log.name}.1")
        try:
            shutil.copy(log, copy)
        except OSError:  # the disk is full: it has to get some space back in any case
            copy.unlink(missing_ok=True)
        os.truncate(log, 0)
