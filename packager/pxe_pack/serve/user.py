"""The user that the servers become, and what that user can read."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from pxe_pack.real_path import real_path

_UNPRIVILEGED_USER = "nobody"


def server_user(layout: Path) -> pwd.struct_passwd | None:
    """The user that servers become: one without any rights, if he can read the layout, else its owner.

    None if this is not root, who alone can become another.
    """
    if os.geteuid() != 0:
        return None
    folder = real_path(layout)
    if all(one.stat().st_mode & stat.S_IXOTH for one in (folder, *folder.parents)):
        return pwd.getpwnam(_UNPRIVILEGED_USER)
    return pwd.getpwuid(folder.stat().st_uid)


def is_readable(file: Path, user: pwd.struct_passwd | None) -> bool:
    """True if `user`, None for this one, can read `file`, by what its folders and it let its owner or everybody do."""
    if user is None:
        return os.access(file, os.R_OK)
    needed = [(file, stat.S_IRUSR), *((folder, stat.S_IXUSR) for folder in file.parents)]
    return user.pw_uid == 0 or all(_may(one.stat(), user.pw_uid, bit) for one, bit in needed)


def _may(status: os.stat_result, uid: int, bit: int) -> bool:
    """`bit` is that of the owner."""
    return bool(status.st_mode & (bit if status.st_uid == uid else bit >> 6))
