"""A machine-id in an image, which all nodes would share.

Sources: machine-id(5), "Initialization"; systemd, src/shared/machine-id-setup.c (without one in /etc, that of D-Bus is
taken unless it is a link); kernel-command-line(7), systemd.machine_id=.
"""

from __future__ import annotations

import re
import stat

from pxe_pack.image.limits import Limit
from pxe_pack.image.tree import RootTree

FILES = ("etc/machine-id", "var/lib/dbus/machine-id")
ARGUMENT = "systemd.machine_id"
_ID = re.compile(r"[0-9a-fA-F-]{32,36}")


def is_fixed(value: str) -> bool:
    """Whether `value` is an identity; "uninitialized" and "firmware" are none."""
    return bool(_ID.fullmatch(value.strip()))


def fixed_in(tree: RootTree) -> str:
    """The file with the machine-id that every node would have; empty if each gets its own."""
    found = tree.stat(FILES)
    for path in FILES:
        inode = found.get(path)
        if (
            inode
            and stat.S_ISREG(inode.mode)
            and is_fixed(tree.cat(path, limit=Limit.ROOT_TEXT).decode(errors="replace"))
        ):
            return path
    return ""
