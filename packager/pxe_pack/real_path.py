"""Paths without links, on every version of Python."""

from __future__ import annotations

import os
from pathlib import Path


def real_path(path: Path) -> Path:
    """The absolute path that `path` leads to; of what does not exist or is a loop of links, as far as it leads.

    Before Python 3.13, `Path.resolve` raises RuntimeError for a loop; os.path.realpath has never done so. Opening what
    is a loop raises OSError (ELOOP), as for any other file that cannot be opened.
    """
    return Path(os.path.realpath(path))
