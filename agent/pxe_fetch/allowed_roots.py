"""The directories below which artifacts may be installed, and the check of a destination with its links followed."""

from __future__ import annotations

import os
from pathlib import Path

from pxe_fetch.errors import PolicyError


class AllowedRoots:
    """`allowed_roots` of the configuration, as written and with symbolic links resolved."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._listed = ", ".join(roots)
        self._written = tuple(f"{root.rstrip('/')}/" for root in roots)
        self._real = tuple(f"{os.path.realpath(root).rstrip('/')}/" for root in roots)

    def check(self, dest: Path) -> bool:
        """Raise PolicyError unless `dest` is below a root, both as written and with its parents' links resolved now.

        Returns whether its directory exists. Parents that do not exist yet count as written.
        """
        if not str(dest).startswith(self._written):
            raise PolicyError(f"{dest} is not below any of allowed_roots ({self._listed})")
        real = os.path.join(os.path.realpath(dest.parent), dest.name)  # noqa: PTH118  beside realpath
        if not real.startswith(self._real):
            raise PolicyError(f"{dest} leads through a symbolic link to {real}, outside allowed_roots ({self._listed})")
        return os.path.isdir(dest.parent)  # noqa: PTH112  Path.is_dir may raise
