"""What this machine must have before the agent can be frozen on it."""

from __future__ import annotations

import importlib.util
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.freeze.machines import THIS_MACHINE, emulation_problem

_PROGRAMS = ("mmdebstrap", "bash", "tar", "chroot")
_USERS_PROGRAMS = ("newuidmap", "unshare")  # for a namespace of his own
_REASON = "to freeze the agent"
_OR_GIVEN = "or give a folder with a ready agent with --agent"


def freeze_problems(cache: Path, *, machine: str = THIS_MACHINE) -> list[Problem]:
    """All that keeps the agent for `machine` from being frozen here, in the folder `cache`, each with its remedy."""
    problems = tools.missing(_PROGRAMS, reason=_REASON)
    if os.geteuid() != 0:
        problems += tools.missing(_USERS_PROGRAMS, reason=_REASON)
        problems += _missing_ids()
    problems += [*_missing_pip(), *_unfit_mount(cache)]
    if not problems and (emulation := emulation_problem(machine, folder=cache)):
        return [emulation]
    return problems


def _unfit_mount(cache: Path) -> Iterator[Problem]:
    """The mount options of the file system of `cache` with which nothing can be frozen there (mount(8))."""
    folder = next(path for path in (cache, *cache.parents) if path.exists())
    mount_point = next(path for path in (folder, *folder.parents) if path.is_mount())
    flags = os.statvfs(folder).f_flag
    unfit = [("noexec", "exec")] if flags & os.ST_NOEXEC else []
    if os.geteuid() == 0 and flags & os.ST_NODEV:  # anyone else has the machine's /dev, see `run_inside`
        unfit.append(("nodev", "dev"))
    if unfit:
        options, remedy = (",".join(words) for words in zip(*unfit, strict=True))
        yield Problem(
            reference="agent-cache-mount",
            message=f"the agent cannot be frozen in {cache}: {mount_point} is mounted {options}",
            hint=f"set XDG_CACHE_HOME to a folder on another file system, or as root: "
            f"mount -o remount,{remedy} {mount_point}; {_OR_GIVEN}",
        )


def _missing_pip() -> Iterator[Problem]:
    if importlib.util.find_spec("pip") is None:
        yield Problem(
            reference="tool-missing",
            message=f"pip is needed {_REASON}, and {sys.executable} does not have it",
            hint=f"{sys.executable} -m ensurepip; {_OR_GIVEN}",
        )


def _missing_ids() -> Iterator[Problem]:
    """What keeps `unshare --map-auto` from making a user namespace (subuid(5), subgid(5))."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    for file, option in ((Path("/etc/subuid"), "uids"), (Path("/etc/subgid"), "gids")):
        try:
            owners = {line.partition(":")[0] for line in file.read_text(encoding="utf-8").splitlines()}
        except OSError:
            owners = set()
        if not owners & {user, str(os.getuid())}:
            yield Problem(
                reference="agent-no-namespace",
                message=f"{file} has no range of ids for {user}, which are needed {_REASON}",
                hint=f"as root: usermod --add-sub{option} 100000-165535 {user}; {_OR_GIVEN}",
            )
