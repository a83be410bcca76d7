"""What the tests of registries put there, and how it is looked at."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

Runs = Callable[..., dict[str, object]]
Fails = Callable[..., str]

MiB = 1 << 20
LARGE = random.Random(1).randbytes(33 * MiB)
SMALL = b"a small file\n"
IDENTITY = "an.identity"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def skopeo(*words: str) -> bytes:
    return subprocess.run(["skopeo", *words], check=True, capture_output=True).stdout
