"""Whose an IPv4 address is: the neighbours that this machine's kernel has talked to (arp(7), proc(5)).

A DHCP server logs which node has which address. Where another server gives the addresses, as beside a proxy, this is
the only place that says so. Nodes behind a router are not in it.
"""

from __future__ import annotations

import re
from pathlib import Path

_TABLE = Path("/proc/net/arp")
# Address, Ethernet (ARPHRD_ETHER), a complete entry (ATF_COM), MAC address.
_ENTRY = re.compile(
    r"^(?P<address>\d+(?:\.\d+){3}) +0x1 +0x[0-9a-f]*[2367abef] +(?P<mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5}) ", re.MULTILINE
)


def mac_addresses() -> dict[str, str]:
    """The MAC address of each neighbour, by its IPv4 address; empty where there is no such table."""
    try:
        table = _TABLE.read_text(encoding="ascii")
    except OSError:
        return {}
    return {found["address"]: found["mac"] for found in _ENTRY.finditer(table)}
