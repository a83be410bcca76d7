"""pxe-pack in a process with little memory, as it is to be with any image."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

SECONDS, MEMORY = 20, 512 << 20  # of the processor, since others use it too


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `pxe-pack`, and assert that it takes no more time and memory than allowed, and prints no traceback."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pxe_pack", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * SECONDS,
        preexec_fn=limit,
        env={**os.environ, "TMPDIR": str(folder), "MALLOC_ARENA_MAX": "2"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    assert "Traceback" not in done.stderr, done.stderr
    assert "MemoryError" not in done.stderr, done.stderr
    return done
