"""pxe-pack in a process with little memory, as it is to be with any image."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SECONDS, MEMORY = 20, 512 << 20


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `pxe-pack`, and assert that it takes no more time and memory than allowed, and prints no traceback."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pxe_pack", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * SECONDS,
        preexec_fn=limit,
        env={**os.environ, "TMPDIR": str(folder), "MALLOC_ARENA_MAX": "2"},
    )
    assert time.monotonic() - begun < SECONDS
    assert "Traceback" not in done.stderr, done.stderr
    assert "MemoryError" not in done.stderr, done.stderr
    return done
