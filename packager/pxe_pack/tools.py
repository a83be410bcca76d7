"""External programs: checked for before any work starts, and run in this module only."""

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

# Program -> its package, as Debian calls it.
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
    "osslsigncode": "osslsigncode",
    "nginx": "nginx",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "ss": "iproute2",
    "minisign": "minisign",
}

# The PATH of an ordinary user may lack the folders of system administration programs.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])


class InputError(ProblemError):
    """Invalid input, or a missing program: nothing was started. Exit code 2."""


class WorkError(ProblemError):
    """The work failed after it had started. Exit code 1."""


def find(program: str) -> Path | None:
    """The path of `program`; None if it is not installed."""
    found = shutil.which(program, path=SEARCH_PATH)
    return Path(found) if found else None


def missing(programs: Iterable[str], *, reason: str) -> list[Problem]:
    """A problem for each of `programs` that is not installed, with its package. `reason` is like "to write the ISO"."""
    from pxe_pack.packages import install_command  # reads what distribution this is, which most runs need not know

    return [
        Problem(
            reference="tool-missing",
            message=f"{program} is required {reason}, but is not installed",
            hint=install_command(PACKAGES.get(program, program)),
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
    """Run `program`, wait for it, and return its stdout.

    `env` is added to the environment; the locale is always C, so that the output can be parsed. Raises WorkError with
    the last lines of stderr if the program fails, InputError if it is not installed.
    """
    with start(program, *arguments, stdin=stdin, stdout=stdout, env=env, cwd=cwd) as process:
        output, errors = process.communicate()
    check(program, process.returncode, errors)
    return output or b""


def command_line(*words: str | Path) -> str:
    """The command as a shell reads it, for people to copy."""
    return shlex.join(map(str, words))


def run_in_terminal(program: str, *arguments: str | Path) -> None:
    """Run `program` with the user's terminal, where it may ask for a password; what it prints goes to stderr.

    Raises WorkError if the program fails, InputError if it is not installed.
    """
    # in our process group: the terminal stops a program of another one that reads from it (termios(3))
    with start(program, *arguments, stdin=0, stdout=2, stderr=2, group=None) as process:
        process.wait()
    check(program, process.returncode, None)


def start(
    program: str,
    *arguments: str | Path,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: str = "KILL",
    group: int | None = 0,
) -> subprocess.Popen[bytes]:
    """Start `program` for callers that stream its input or output. Raises InputError if it is not installed.

    `group` is that of start_child. A signal that ends pxe-pack kills the program. With setpriv(1), the kernel sends it
    `death_signal` however pxe-pack ends: one that has children of its own needs TERM, to end them too. Call this from
    the main thread: the kernel sends the signal when the thread that started it ends.
    """
    path = find(program)
    if path is None:
        raise InputError(*missing([program], reason=f"for `{program} {' '.join(map(str, arguments[:2]))} …`"))
    command: Sequence[str | Path] = [path, *arguments]
    _log.info("running %s", shlex.join(map(str, command)))
    if setpriv := find("setpriv"):
        command = [setpriv, "--pdeathsig", death_signal, *command]
    search_path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])  # for what it starts itself
    environment = {**os.environ, "LC_ALL": "C", "PATH": search_path, **(env or {})}
    return start_child(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, cwd=cwd, group=group)


def check(program: str, code: int, errors: bytes | None) -> None:
    """Raise WorkError with the last lines of `errors` if `code` is not 0."""
    for line in (errors or b"").decode(errors="replace").splitlines():
        _log.debug("%s: %s", program, line)
    if code == 0:
        return
    said = (errors or b"").decode(errors="replace").strip().splitlines()[-6:]
    raise WorkError(
        Problem(
            reference="tool-failed",
            message=f"{program} failed with {'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)}",
            label="\n  ".join(said),
        )
    )
