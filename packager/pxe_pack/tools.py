"""Outside programs: found before anything is done, run in one place, their complaints kept."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from pxe_fetch.contract.problem import Problem, ProblemError
from pxe_pack.cleanup import start_child

_log = logging.getLogger(__name__)

# Program -> the Debian package that has it. Azure Linux and Fedora name theirs alike but for a few.
PACKAGES: Mapping[str, str] = {
    "mksquashfs": "squashfs-tools",
    "sqfstar": "squashfs-tools",
    "sqfs2tar": "squashfs-tools-ng",
    "tar2sqfs": "squashfs-tools-ng",
    "xorriso": "xorriso",
    "mcopy": "mtools",
    "mmd": "mtools",
    "mkfs.fat": "dosfstools",
    "systemd-analyze": "systemd",
    "qemu-system-x86_64": "qemu-system-x86",
    "cpio": "cpio",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "chroot": "coreutils",
    "newuidmap": "uidmap",
    "zstd": "zstd",
}

# Administrators' programs live where an ordinary user's PATH may not lead.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class InputError(ProblemError):
    """Something the user gave, or the machine lacks, stops the work before it began: exit code 2."""


class WorkError(ProblemError):
    """The work began and could not be finished: exit code 1."""


def find(program: str) -> Path | None:
    """Where `program` is, or None."""
    found = shutil.which(program, path=SEARCH_PATH)
    return Path(found) if found else None


def missing(programs: Iterable[str], *, reason: str) -> list[Problem]:
    """A problem for each of `programs` that is not installed, naming the package that has it. `reason`: "to …"."""
    return [
        Problem(
            reference="tool-missing",
            message=f"{program} is needed {reason}, and is not installed",
            hint=f"apt-get install {PACKAGES.get(program, program)}",
        )
        for program in programs
        if find(program) is None
    ]


def run(
    program: str,
    *arguments: str | Path,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> bytes:
    """Run `program` to its end and give what it wrote to stdout.

    `env` is added to ours; the locale is always C, so that what it prints can be read.
    Raises WorkError with the last lines of its stderr when it fails, InputError when it is not installed.
    """
    with start(program, *arguments, stdin=stdin, stdout=stdout, env=env, cwd=cwd) as process:
        output, errors = process.communicate()
    check(program, process.returncode, errors)
    return output or b""


def start(
    program: str,
    *arguments: str | Path,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `program`, for the callers that stream. Raises InputError when it is not installed.

    It is killed when a signal ends us; where setpriv(1) is installed, the kernel kills it however we end. To be called
    in the main thread: that is whose end the kernel looks at.
    """
    path = find(program)
    if path is None:
        raise InputError(*missing([program], reason=f"for `{program} {' '.join(map(str, arguments[:2]))} …`"))
    command: Sequence[str | Path] = [path, *arguments]
    _log.info("running %s", shlex.join(map(str, command)))
    if setpriv := find("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    environment = {**os.environ, "LC_ALL": "C", **(env or {})}
    return start_child(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, cwd=cwd)


def check(program: str, code: int, errors: bytes | None) -> None:
    """Raise WorkError when `code` is not 0, with the last lines of `errors`."""
    for line in (errors or b"").decode(errors="replace").splitlines():
        _log.debug("%s: %s", program, line)
    if code == 0:
        return
    said = (errors or b"").decode(errors="replace").strip().splitlines()[-6:]
    raise WorkError(
        Problem(
            reference="tool-failed",
            message=f"{program} ended with {'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)}",
            label="\n  ".join(said),
        )
    )
