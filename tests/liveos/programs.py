"""Outside programs: found, run, and their failures told."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

EPOCH = 1_700_000_000  # SOURCE_DATE_EPOCH of all that is built: the same inputs give the same bytes

_PACKAGES = {
    "debugfs": "e2fsprogs",
    "gzip": "gzip",
    "grub-mkimage": "grub-common",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "sqfstar": "squashfs-tools",
    "xorriso": "xorriso",
    "zstd": "zstd",
}

_FILES = {
    "/usr/lib/shim/shimx64.efi.signed": "shim-signed",
    "/usr/lib/grub/x86_64-efi/normal.mod": "grub-efi-amd64-bin",
}


class BuildError(Exception):
    """An image could not be built: a sentence that says why and what to do."""


def require(*names: str) -> None:
    """See that each named program (or file, by its full path) is there; raises BuildError naming all that lack."""
    lacking = [name for name in names if not (Path(name).exists() if name.startswith("/") else _find(name))]
    if lacking:
        packages = sorted({_FILES[name] if name.startswith("/") else _PACKAGES[name] for name in lacking})
        raise BuildError(f"missing: {', '.join(lacking)}; install with: apt-get install {' '.join(packages)}")


def run(
    argv: Sequence[str | Path],
    *,
    doing: str,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    cwd: Path | None = None,
) -> str:
    """What a program wrote to stdout; raises BuildError with the end of its stderr if it failed."""
    done = subprocess.run(
        [str(word) for word in (_find(str(argv[0])) or argv[0], *argv[1:])],
        stdin=stdin if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=cwd,
        env=environment(env),
    )
    if done.returncode:
        tail = "\n".join((done.stderr + done.stdout).decode(errors="replace").strip().splitlines()[-15:])
        raise BuildError(f"{doing}: {Path(str(argv[0])).name} failed with exit code {done.returncode}:\n{tail}")
    return done.stdout.decode(errors="replace")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for programs: no locale, the fixed date, and the sbin folders on the path."""
    base = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(EPOCH), "PATH": _path()}
    return {**base, **(extra or {})}


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _find(name: str) -> str | None:
    return shutil.which(name, path=_path())
