"""What an image says of who a node is, which all nodes would share: machine-id, SSH host keys, names for storage.

Sources: machine-id(5), "Initialization"; systemd, src/shared/machine-id-setup.c (without one in /etc, that of D-Bus is
taken unless it is a link); kernel-command-line(7), systemd.machine_id=; sshd_config(5), HostKey; iscsid(8),
initiatorname.iscsi; nvme-connect(1), /etc/nvme/hostnqn; cloud-init's cc_ssh, `ssh_deletekeys`.
"""

from __future__ import annotations

import re
import stat

from pxe_pack.image.limits import Limit
from pxe_pack.image.tree import RootTree, text_file

FILES = ("etc/machine-id", "var/lib/dbus/machine-id")
ARGUMENT = "systemd.machine_id"
CLOUD_INIT = "cloud-init.service"  # makes new SSH host keys
_ID = re.compile(r"[0-9a-fA-F-]{32,36}")
_SSH = "etc/ssh"
_HOST_KEY = re.compile(r"ssh_host_.*_key")
_STORAGE = {  # file -> what a line with a name in it looks like
    "etc/iscsi/initiatorname.iscsi": re.compile(r"(?m)^\s*InitiatorName\s*=\s*\S"),
    "etc/nvme/hostnqn": re.compile(r"(?m)^\s*nqn\."),
    "etc/nvme/hostid": re.compile(r"(?m)^\s*[0-9a-fA-F-]{32,36}\s*$"),
}


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


def host_keys(tree: RootTree) -> list[str]:
    """The private SSH host keys in the image; empty files are made anew when sshd starts."""
    return sorted(
        one.path
        for one in tree.inside(tree.resolve(_SSH))
        if stat.S_ISREG(one.mode) and one.size != "0" and _HOST_KEY.fullmatch(one.path.rpartition("/")[2])
    )


def storage_names(tree: RootTree) -> list[str]:
    """The files with the name by which a storage server knows a node: the initiator's of iSCSI, the host's of NVMe."""
    return [path for path, name in _STORAGE.items() if name.search(text_file(tree, path))]
