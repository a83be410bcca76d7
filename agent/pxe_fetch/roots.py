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
        real = f"{_real(str(dest.parent))}/{dest.name}"
        if not real.startswith(self._real):
            raise PolicyError(f"{dest} leads by a symbolic link to {real}, outside allowed_roots ({self._said})")


def _real(directory: str) -> str:
    """Where `directory` really is; what does not exist yet counts as it is written.

    The kernel knows at once what `os.path.realpath` asks it for name by name, twice for each artifact.
    """
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return os.path.realpath(directory)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:  # a sandbox without /proc
        return os.path.realpath(directory)
    finally:
        os.close(descriptor)
