"""How long something takes, on a machine that may have much else to do."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Self

_STEP = 0.01  # seconds between two looks


class Stopwatch:
    """A context whose `seconds` leave out those in which a thread of this process, or of `pid`, waited for a CPU.

    Who waits for a clock, a lock or another machine waits for no CPU, so that counts in full: a timeout that should not
    have been waited for is seen on a busy machine too. Where the kernel does not tell (schedstats), all counts.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._folders = [Path(f"/proc/{one}/task") for one in ("self", pid) if one is not None]
        self._waited = self._began = self._ended = 0.0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._over.set()
        self._watcher.join()

    @property
    def seconds(self) -> float:
        """What it took, once the context is left."""
        assert self._ended, "it still runs"
        return self._ended - self._began - self._waited

    def _watch(self) -> None:
        before, last = self._delays(), time.monotonic()
        over = False
        while not over:
            over = self._over.wait(_STEP)
            after, now = self._delays(), time.monotonic()
            waited = max((delay - before.get(task, 0.0) for task, delay in after.items()), default=0.0)
            self._waited += min(waited, now - last)
            before, last = after, now

    def _delays(self) -> dict[Path, float]:
        """For each thread, seconds that it was ready to run and had no CPU (Documentation/scheduler/sched-stats)."""
        tasks = [task for folder in self._folders for task in _listed(folder)]
        return {task: delay for task in tasks if (delay := _delay(task)) is not None}


def _listed(folder: Path) -> list[Path]:
    """The threads of a process but the one that asks; none once it has ended."""
    with contextlib.suppress(OSError):
        return [task for task in folder.iterdir() if task.name != str(threading.get_native_id())]
    return []


def _delay(task: Path) -> float | None:
    with contextlib.suppress(OSError, IndexError):
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    return None
