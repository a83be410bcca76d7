"""IP addresses as logs, proxies and sockets write them."""

from __future__ import annotations

import ipaddress


def usual(text: str) -> str:
    """An IP address in its usual form, an IPv4 address also if it is mapped into IPv6; "" if it is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def is_loopback(text: str) -> bool:
    """Whether it is an address of this machine that no other can reach."""
    address = usual(text)
    return bool(address) and ipaddress.ip_address(address).is_loopback
