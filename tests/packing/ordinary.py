"""An ordinary user of this machine. Where the tests run as root, one is added for as long as a command runs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ID = 64_242  # neither a user's nor one of systemd's (https://systemd.io/UIDS-GIDS)
_TABLES = {
    "passwd": "ordinary:x:{id}:{id}::{home}:/bin/sh",
    "group": "ordinary:x:{id}:",
    "subuid": "ordinary:1000000:65536",
    "subgid": "ordinary:1000000:65536",
}
_NEEDED = (Path(__file__).resolve().parents[2], Path(sys.base_prefix).resolve())  # the project, and its Python


@dataclass(frozen=True, kw_only=True)
class OrdinaryUser:
    """Someone who may make user namespaces, and owns the folder `home`."""

    home: Path
    prefix: tuple[str, ...]  # of a command that he runs

    def run(self, *command: str | Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run `command` as that user, in his home; `env` is added to the environment."""
        if os.geteuid() == 0:
            for path in [self.home, *self.home.rglob("*")]:
                os.chown(path, _ID, _ID, follow_symlinks=False)
        environment = {**os.environ, "HOME": str(self.home), **env}
        return subprocess.run(
            [*self.prefix, *command], env=environment, cwd=self.home, capture_output=True, text=True, check=False
        )


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """The user who runs the tests, or one that is added where that is root; his home is new, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pxe-pack-user-", dir="/var/tmp") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        if os.geteuid() != 0:
            yield OrdinaryUser(home=home, prefix=())
            return
        folder.chmod(0o755)
        # The namespace, and with it all that is mounted, goes with the command.
        steps = ["set -e", *_add_user(folder / "etc", home=home), *_open_folders(folder / "open")]
        steps.append(f'exec setpriv --reuid {_ID} --regid {_ID} --clear-groups -- "$@"')
        yield OrdinaryUser(home=home, prefix=("unshare", "--mount", "sh", "-c", "\n".join(steps), "sh"))


def _add_user(etc: Path, *, home: Path) -> Iterator[str]:
    """A shell command that mounts an /etc with that user, which is made in the folder `etc`."""
    shutil.copytree("/etc", etc, symlinks=True)
    for table, line in _TABLES.items():
        with (etc / table).open("a") as file:
            file.write(line.format(id=_ID, home=home) + "\n")
    yield shlex.join(["mount", "--bind", str(etc), "/etc"])


def _open_folders(folder: Path) -> Iterator[str]:
    """Shell commands that let others reach what they need inside folders that are closed to them (/root).

    Each is replaced by one made inside `folder`, which has nothing else.
    """
    opened: dict[Path, Path] = {}
    for needed in _NEEDED:
        for closed in reversed(needed.parents):
            if not closed.stat().st_mode & 0o001:
                replacement = opened.setdefault(closed, folder / str(len(opened)))
                target = replacement / needed.relative_to(closed)
                target.mkdir(parents=True)
                yield shlex.join(["mount", "--bind", str(needed), str(target)])
                break
    for closed, replacement in opened.items():
        yield shlex.join(["mount", "--rbind", str(replacement), str(closed)])
