"""Whether other users may change what is in a folder. Who can change the agent's, runs as root on every node.

A folder is private if it belongs to this user, nobody else may write to it, and nobody else may rename a folder above
it: those belong to this user or to root, and are writable by others only if they are sticky (unlink(2), EPERM). A group
with the user's name and no other member is the user alone (useradd(8); login.defs(5), USERGROUPS_ENAB).
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from pxe_fetch.contract.problem import Problem


def make_private(folder: Path) -> None:
    """Create `folder` and its missing parents, for this user alone (XDG Base Directory Specification).

    Raises OSError.
    """
    for path in (*reversed(folder.parents), folder):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)


def unsafe_folder(folder: Path) -> Problem | None:
    """Why `folder`, an absolute path without links, is not private; None if it is. Missing ones are passed over."""
    for path in (folder, *folder.parents):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if reason := _reason(status, is_parent=path != folder):
            return Problem(
                reference="agent-cache-unsafe",
                message=f"the cache of frozen agents {folder} is not used: {path} {reason}, who could change the agent",
                hint="set XDG_CACHE_HOME to a folder of your own, or let nobody else write there (chmod go-w)",
            )
    return None


def _reason(status: os.stat_result, *, is_parent: bool) -> str:
    owners = {os.geteuid(), 0} if is_parent else {os.geteuid()}
    if status.st_uid not in owners:
        return f"belongs to {_user(status.st_uid)}"
    if is_parent and status.st_mode & stat.S_ISVTX:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "is writable by everybody"
    if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid):
        return f"is writable by the group {_group(status.st_gid)}"
    return ""


def _is_own_group(number: int) -> bool:
    with suppress(KeyError):
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
        return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return False


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def _group(number: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)
