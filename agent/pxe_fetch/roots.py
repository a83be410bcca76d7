"""The folders below which artifacts may be placed, and whether a destination lies there, links followed."""

from __future__ import annotations

import os
from pathlib import Path

from pxe_fetch.errors import PolicyError


class Roots:
    """`allowed_roots` of the configuration, and where they really are."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._said = ", ".join(roots)
        self._written = tuple(f"{root.rstrip('/')}/" for root in roots)
        self._real = tuple(f"{os.path.realpath(root).rstrip('/')}/" for root in roots)

    def check(self, dest: Path) -> None:
        """Raise PolicyError unless `dest`, and what its parents lead to as they are now, lie below a root."""
        if not str(dest).startswith(self._written):
            raise PolicyError(f"{dest} is not below any of allowed_roots ({self._said})")
        real = f"{os.path.realpath(dest.parent)}/{dest.name}"
        if not real.startswith(self._real):
            raise PolicyError(f"{dest} leads by a symbolic link to {real}, outside allowed_roots ({self._said})")
