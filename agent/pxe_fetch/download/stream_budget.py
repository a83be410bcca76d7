"""How many bodies a run reads at once: a number that its artifacts share."""

from __future__ import annotations

from threading import Lock


class StreamBudget:
    """Slots for streams beside the one that each artifact under way has anyway. Safe to use from several threads."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._lock = Lock()

    @property
    def free(self) -> int:
        """How many could be taken now."""
        return self._free

    def take(self) -> bool:
        """Whether there was one, which is the caller's from now on."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """One more is free: given back, or of an artifact's worker that has nothing left to do."""
        with self._lock:
            self._free += 1
