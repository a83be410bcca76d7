"""The source tree of a commit, in a folder of its own: nothing that is not committed gets into a release."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A commit's tree."""

    folder: Path
    commit: str  # its full name
    version: str
    epoch: int  # seconds since 1970 of the commit: the time of all that is built from it (SOURCE_DATE_EPOCH)

    @property
    def environment(self) -> dict[str, str]:
        """For programs that build: same bytes whenever and in whatever folder, and this tree's modules."""
        path = os.pathsep.join(str(self.folder / part) for part in ("agent", "packager"))
        return {
            **os.environ,
            "SOURCE_DATE_EPOCH": str(self.epoch),
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }

    def run(self, *arguments: str) -> bytes:
        """Run Python in the tree; what it wrote to stdout. Raises CalledProcessError."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, check=True)
        return done.stdout


def export(repository: Path, commit: str, folder: Path) -> Source:
    """Write the tree of `commit` to `folder`, with modes that do not depend on the umask. Raises CalledProcessError."""
    git = ("git", "-C", repository)
    folder.mkdir()
    with tempfile.TemporaryFile() as archive:  # no pipe: tar ends at the end mark, and git fails if nobody reads on
        subprocess.run([*git, "archive", "--format=tar", commit], stdout=archive, check=True)
        archive.seek(0)
        subprocess.run(["tar", "-x", "--mode=go-w", "-C", folder], stdin=archive, check=True)
    shown = subprocess.run([*git, "log", "-1", "--format=%H %ct", commit], capture_output=True, text=True, check=True)
    name, epoch = shown.stdout.split()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return Source(folder=folder, commit=name, version=project["version"], epoch=int(epoch))
