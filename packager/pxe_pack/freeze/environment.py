"""The environment that the agent is frozen in: a Debian bookworm of its own, whatever the machine that packs is.

One for every host, so that the agent depends neither on the Python nor on the C library of the machine that packs. It
is made by mmdebstrap, as root or, in a user namespace, as an ordinary user; of Debian's packages no more is unpacked
than PyInstaller needs, and none is configured. The libraries from PyPI are exactly what agent.lock and build.lock name,
by their hashes. Both lists were made, and are refreshed, with pip-tools from the .in files beside them, on Python 3.11:

    pip-compile --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links build.in
    pip-compile --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links agent.in
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.freeze.machines import ARCHITECTURES, THIS_MACHINE
from pxe_pack.freeze.wheels import install_wheels

HERE = Path(__file__).parent
SUITE, PYTHON = "bookworm", "3.11"

# What decides the environment beside Debian's archive: another key where any of them changes.
_PARTS = tuple(
    HERE / name for name in ("environment.py", "environment.sh", "wheels.py", "hypot.c", "agent.lock", "build.lock")
)

# PyInstaller and its tools; the agent's journal; what libpython is linked again with (environment.sh).
_PACKAGES = (
    "python3.11-minimal,libpython3.11-stdlib,libpython3.11,binutils,libc-bin,bash,coreutils,"
    "python3-systemd,"
    "libpython3.11-dev,gcc,libc6-dev,grep"
)
_ROOT, _FACTS = "root", "environment.json"
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
_LIBRARIES = "/opt/libraries"

# A line for each library and module of C that the agent may be frozen from: its name, and the file of its package.
_LIST_OWNERS = (
    'cd "$1/var/cache/apt/archives" && for deb in $(ls *.deb | grep -v -e -dev_ -e gcc -e cpp -e binutils); do '
    r"""dpkg-deb --fsys-tarfile $deb | tar -t | sed -n "s|.*/\([^/]*\.so[^/]*\)\$|\1 $deb|p"; done >"$1/opt/owners" """
)

# Debian's updates are taken in after a week. A machine that can't reach Debian then keeps what it has, and asks again
# a day later.
_FRESH_SECONDS, _RETRY_SECONDS = 7 * 86400, 86400


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """An environment in the cache: a root directory, all of it owned by who made it."""

    folder: Path
    machine: str  # as `uname -m` says it; another one than this machine's is emulated
    packages: tuple[str, ...]  # file names of Debian's packages in it, versions included
    owners: Mapping[str, str]  # file name of a library or a module of C -> that of the package it is from
    listing: str  # digest of the names and sizes of its files when it was made

    @property
    def root(self) -> Path:
        """The root directory."""
        return self.folder / _ROOT

    @property
    def is_fresh(self) -> bool:
        """Whether it is too young to have missed updates that matter."""
        return (self.folder / _FACTS).stat().st_mtime > time.time() - _FRESH_SECONDS

    @property
    def is_whole(self) -> bool:
        """Whether it has the files that it had when it was made, each with its size."""
        return _listing(self.root) == self.listing

    def postpone(self) -> None:
        """Have it count as fresh for one more day."""
        moment = time.time() - _FRESH_SECONDS + _RETRY_SECONDS
        os.utime(self.folder / _FACTS, (moment, moment))

    def copy(self, root: Path) -> None:
        """Make the folder `root` a copy of it, for one freeze; the files are links to its own. Raises WorkError."""
        tools.run("cp", "--archive", "--link", self.root, root)


def environment_name(machine: str) -> str:
    """The name in the cache of this installation's environment for `machine`."""
    digest = hashlib.sha256(f"{machine}\0".encode())
    for part in _PARTS:
        digest.update(part.read_bytes() + b"\0")
    return f"environment-{digest.hexdigest()[:32]}"


def read_environment(folder: Path) -> Environment | None:
    """The environment in `folder`, None where there is none."""
    try:
        facts = json.loads((folder / _FACTS).read_bytes())
        return Environment(
            folder=folder,
            machine=str(facts["machine"]),
            packages=tuple(facts["packages"]),
            owners=dict(facts["owners"]),
            listing=str(facts["listing"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_environment(work: Path, *, machine: str = THIS_MACHINE) -> Path:
    """Make an environment for `machine` inside `work`, a folder of its own; returns its folder. Raises WorkError."""
    libraries, out = work / Path(_LIBRARIES).name, work / "environment"
    (out / _ROOT).mkdir(parents=True)
    try:
        locks = (HERE / "build.lock", HERE / "agent.lock")
        install_wheels(libraries, locks=locks, python=PYTHON, machine=machine, wheels=work / "wheels")
        _bootstrap(out / _ROOT, libraries, machine=machine, work=work)
    except tools.WorkError as error:
        raise tools.WorkError(
            Problem(
                reference="agent-environment-failed",
                message="the environment that the agent is frozen in could not be made",
                label=error.problems[0].label,
                hint=f"this needs Debian {SUITE}'s packages and pip's index; or give a ready agent with --agent",
            )
        ) from error
    packages = (work / "packages").read_text(encoding="utf-8").split()
    owners = dict(line.split() for line in (work / "owners").read_text(encoding="utf-8").splitlines())
    facts = {"machine": machine, "packages": sorted(packages), "owners": owners, "listing": _listing(out / _ROOT)}
    (out / _FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return out


def _listing(root: Path) -> str:
    seen = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118  ten thousand files
            status = os.lstat(path)
            if stat.S_ISCHR(status.st_mode):  # /dev/null, see run_inside
                continue
            seen.update(f"{os.path.relpath(path, root)}\0{status.st_size}\0".encode(errors="surrogateescape"))
    return seen.hexdigest()


def run_inside(root: Path, *command: str, variables: Mapping[str, str]) -> bytes:
    """Run `command` in the copy of an environment at `root`, with those environment variables and few others.

    What it wrote to stdout. Raises WorkError.
    """
    variables = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": _LIBRARIES, **variables}
    inner = ("env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command)
    if os.geteuid() == 0:
        null = root / "dev" / "null"  # PyInstaller needs no other device
        if not null.exists():
            os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        return tools.run("chroot", root, *inner)
    # Who owns all of it needs no other user. What is mounted goes with the namespace.
    script = 'mount --rbind /dev "$1/dev" && exec chroot "$@"'
    return tools.run("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", root, *inner)


def _bootstrap(root: Path, libraries: Path, *, machine: str, work: Path) -> None:
    """Lay out the environment in the folder `root`, as its owner. Raises WorkError.

    mmdebstrap mounts in a mount namespace, so its mounts are gone however it ends, before its folder is removed:
    removing that with /dev still mounted in it would remove the machine's own. An ordinary user is root in a user
    namespace, where the files of other system users belong to his subordinate ids. No process outside could remove
    them, so they are kept in memory (0.5 GB), and vanish with the namespace. (mmdebstrap's own mode
    "unshare" would leave them in /var/tmp when it is killed.)
    """
    temporary = work / "temporary"
    temporary.mkdir()
    said = work / "said"
    steps = ["set -o pipefail", 'export TMPDIR="$1"', 'said="$2"', 'root="$3"', "shift 3"]
    namespace: tuple[str, ...] = ("unshare", "--mount") if _may_unshare() else ()
    if os.geteuid() != 0:
        namespace = ("unshare", "--map-root-user", "--map-auto", "--mount")
        steps.append('mount -t tmpfs tmpfs "$TMPDIR" || exit')
    # No device files: only root could make them. tar ends at the archive's end mark, and mmdebstrap fails if nobody
    # reads the zeros behind it.
    unpack = 'tar -x --no-same-owner --exclude="./dev/*" --directory "$root" && cat >/dev/null'
    steps.append(f'mmdebstrap "$@" 2>"$said" | {{ {unpack}; }}')
    arguments = ("bash", temporary, said, root, *_mmdebstrap(libraries, machine=machine, work=work))
    try:
        tools.run("env", *namespace, "bash", "-c", "; ".join(steps), *arguments)
    except tools.WorkError:
        # tar's words are those of one who was given nothing.
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines() if said.exists() else []
        if errors := [line for line in lines if not line.startswith("I: ")]:
            tools.check("mmdebstrap", 1, "\n".join(errors).encode())
        raise


def _may_unshare() -> bool:
    """Whether root may mount here: in some containers it may not, and then mmdebstrap mounts nothing."""
    try:
        tools.run("unshare", "--mount", "true")
    except tools.WorkError:
        return False
    return True


def _mmdebstrap(libraries: Path, *, machine: str, work: Path) -> Iterator[str | Path]:
    """Arguments of mmdebstrap that write a tar to stdout, and the names of the packages to a file in `work`."""
    files = shlex.join(map(str, (HERE / "environment.sh", HERE / "hypot.c", libraries)))
    yield from ("--mode=root", "--variant=extract", f"--architectures={ARCHITECTURES[machine]}")
    yield from (f"--include={_PACKAGES}", f"--hook-dir={_MERGED_USR}")
    for hook in (
        'mkdir -p "$1/opt" && cd "$1/var/cache/apt/archives" && ls *.deb >"$1/opt/packages"',
        _LIST_OWNERS,
        f"download /opt/packages {shlex.quote(str(work / 'packages'))}",
        f"download /opt/owners {shlex.quote(str(work / 'owners'))}",
        f"copy-in {files} /opt",
        'chroot "$1" bash -c "cd /opt && . ./environment.sh"',
    ):
        yield f"--extract-hook={hook}"
    yield from (SUITE, "-", *debian_mirrors(SUITE))


def debian_mirrors(suite: str) -> Iterator[str]:
    """Debian's archives of `suite` as this machine's apt knows them; none if it knows none: mmdebstrap has its own."""
    known: dict[str, str] = {}
    if tools.find("apt-get"):
        shown = tools.run(
            "apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages", "Origin: Debian"
        )
        for line in shown.decode().splitlines():
            label, _, uri = line.partition("|")
            if uri.startswith(("http://", "https://")):
                known.setdefault(label, uri)
    if "Debian" in known:
        security = known.get("Debian-Security", "http://deb.debian.org/debian-security")
        yield f"deb {known['Debian']} {suite} main"
        yield f"deb {known['Debian']} {suite}-updates main"
        yield f"deb {security} {suite}-security main"
