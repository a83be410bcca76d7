"""Which service of a root filesystem configures the network by DHCP, derived from its units and their configuration.

Sources: systemd.network(5), NetworkManager(8) (a wired interface without a profile gets DHCP), interfaces(5).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.tree import RootTree, text_file

_NETWORKD_FOLDERS = ("etc/systemd/network", "usr/lib/systemd/network")
_INTERFACES, _INTERFACES_FOLDER = "etc/network/interfaces", "etc/network/interfaces.d"
_READ = re.compile(r"(?:etc|usr/lib|lib)/systemd/network/[^/]+\.network|etc/network/interfaces(?:\.d/[^/]+)?")
_DHCP = re.compile(r"^[ \t]*DHCP[ \t]*=[ \t]*(?:yes|true|on|1|y|t|ipv4|v4|both)[ \t]*$", re.MULTILINE | re.IGNORECASE)
# a .network for containers, wireless or virtual links does not apply to a node that boots over its wired interface
_ELSEWHERE = re.compile(
    r"^[ \t]*(?:Virtualization[ \t]*=[ \t]*(?:![ \t]*no|container|yes)"
    r"|Type[ \t]*=[ \t]*wlan|Kind[ \t]*=|WLANInterface)",
    re.MULTILINE,
)
_INET_DHCP = re.compile(r"^[ \t]*iface[ \t]+\S+[ \t]+inet6?[ \t]+(?:dhcp|auto)\b", re.MULTILINE)
# units that use DHCP on wired interfaces by default
_DHCP_BY_DEFAULT = {
    "NetworkManager.service": "NetworkManager",
    "dhcpcd.service": "dhcpcd",
    "cloud-init.service": "cloud-init",
    "cloud-init-local.service": "cloud-init",
    "connman.service": "ConnMan",
    "wicked.service": "wicked",
}


def is_network_config(path: str) -> bool:
    """Whether `dhcp` may read the file `path`."""
    return bool(_READ.fullmatch(path))


def dhcp(tree: RootTree, enabled: Container[str]) -> str:
    """Which of the `enabled` units uses DHCP: `systemd-networkd (etc/systemd/network/x.network)`; empty if none.

    Raises LimitError, and the errors of `tree`.
    """
    files = Usage(Limit.ROOT_NETWORKS)
    if "systemd-networkd.service" in enabled or "systemd-networkd.socket" in enabled:
        for path in _names(tree, _NETWORKD_FOLDERS, suffix=".network"):
            files.add()
            if _DHCP.search(text := text_file(tree, path)) and not _ELSEWHERE.search(text):
                return f"systemd-networkd ({path})"
    for unit, program in _DHCP_BY_DEFAULT.items():
        if unit in enabled:
            return program
    if "networking.service" in enabled:
        for path in (_INTERFACES, *_names(tree, [_INTERFACES_FOLDER])):
            files.add()
            if _INET_DHCP.search(text_file(tree, path)):
                return f"ifupdown ({path})"
    return ""


def _names(tree: RootTree, folders: Iterable[str], *, suffix: str = "") -> list[str]:
    return [inode.path for folder in folders for inode in tree.inside(folder) if inode.path.endswith(suffix)]
