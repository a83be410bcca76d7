"""File systems of a few megabytes, for what happens when they are full. Mounting takes root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")


NTFS = shutil.which("lowntfs-3g", path="/bin:/usr/bin:/sbin:/usr/sbin")
that_ignore_case = pytest.mark.skipif(
    os.geteuid() != 0 or not NTFS or not Path("/dev/fuse").exists(), reason="mounting it takes root, FUSE and ntfs-3g"
)


@contextmanager
def ignoring_case(folder: Path) -> Iterator[Path]:
    """A file system that ignores the case of names at `folder`, which is made, for as long as the context lasts."""
    image = folder.with_name(f"{folder.name}.ntfs")
    folder.mkdir(parents=True, exist_ok=True)
    image.touch()
    os.truncate(image, 20_000_000)
    subprocess.run(["/sbin/mkntfs", "-F", "-Q", "-q", str(image)], check=True, capture_output=True)
    assert NTFS
    subprocess.run([NTFS, "-o", "ignore_case", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def mounted(folder: Path, kind: str, options: str) -> Iterator[Path]:
    """A file system of `kind` at `folder`, which is made, for as long as the context lasts."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
