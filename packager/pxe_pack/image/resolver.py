"""Whether the running system can resolve host names: who writes /etc/resolv.conf, or what it holds.

Sources: resolv.conf(5); nsswitch.conf(5); systemd-resolved.service(8), "/etc/resolv.conf"; NetworkManager.conf(5),
`rc-manager`; nss-resolve(8). systemd-networkd never writes /etc/resolv.conf.
"""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Container

from pxe_pack.image.tree import RootTree, text_file

CONFIG, HOSTS, _NSSWITCH = "etc/resolv.conf", "etc/hosts", "etc/nsswitch.conf"
READ = (CONFIG, HOSTS, _NSSWITCH)
_RESOLVED = "systemd-resolved.service"
# units that replace a file /etc/resolv.conf by what DHCP says
_WRITERS = (
    "NetworkManager.service",
    "cloud-init.service",
    "connman.service",
    "dhcpcd.service",
    "networking.service",
    "resolvconf.service",
    "wicked.service",
)
_LOCAL_SERVERS = (
    _RESOLVED,
    *("bind9.service", "dnscrypt-proxy.service", "dnsmasq.service", "named.service", "unbound.service"),
)
_MAKERS = {  # of the targets in /run that the file may be a link to
    "run/systemd/resolve/": _RESOLVED,
    "run/NetworkManager/": "NetworkManager.service",
}
_NAMESERVER = re.compile(r"^[ \t]*nameserver[ \t]+(\S+)", re.MULTILINE)


def is_missing(tree: RootTree) -> bool:
    """Whether there is no /etc/resolv.conf. Then it may be made at boot: by systemd's tmpfiles.d, for one."""
    return CONFIG not in tree.stat([CONFIG])


def fault(tree: RootTree, enabled: Container[str]) -> str:
    """Why names may not be resolved, as a sentence without its subject, /etc/resolv.conf; empty if nothing is wrong."""
    if _RESOLVED in enabled and re.search(r"(?m)^hosts:.*\bresolve\b", text_file(tree, _NSSWITCH)):
        return ""  # the file is not read
    inode = tree.stat([CONFIG]).get(CONFIG)
    if inode and stat.S_ISLNK(inode.mode):
        return _fault_of_link(tree, enabled)
    if any(unit in enabled for unit in _WRITERS):
        return ""
    return _fault_of_servers(_NAMESERVER.findall(text_file(tree, CONFIG)), enabled)


def known_hosts(tree: RootTree) -> frozenset[str]:
    """The names in /etc/hosts."""
    lines = (line.partition("#")[0].split() for line in text_file(tree, HOSTS).splitlines())
    return frozenset(name.lower() for words in lines for name in words[1:])


def _fault_of_link(tree: RootTree, enabled: Container[str]) -> str:
    target = tree.resolve(CONFIG)
    for place, unit in _MAKERS.items():
        if target.startswith(place):
            return "" if unit in enabled else f"is a link to /{target}, which {unit} makes, but that is not enabled"
    if target.startswith("run/"):
        return ""
    if not tree.stat([target]).get(target):
        return f"is a link to /{target}, which does not exist"
    return _fault_of_servers(_NAMESERVER.findall(text_file(tree, CONFIG)), enabled)


def _fault_of_servers(servers: list[str], enabled: Container[str]) -> str:
    if not servers:
        return "names no server, and nothing that is enabled writes it"
    addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in servers if is_address(one)]
    if addresses and all(one.is_loopback for one in addresses):
        if any(unit in enabled for unit in _LOCAL_SERVERS):
            return ""
        return f"names {servers[0]}, but no resolver on the node itself is enabled"
    if addresses and all(one.is_private for one in addresses):
        return f"is a file of the image, and names {servers[0]}: that may be the server of the build host"
    return ""


def is_address(text: str) -> bool:
    """Whether a host, as in URLs and configuration files, is an IP address; IPv6 may have a zone."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
