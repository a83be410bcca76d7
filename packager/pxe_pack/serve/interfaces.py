"""The network interfaces of this machine, and their addresses, as ip-address(8) lists them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.layout.site import Address, Network
from pxe_pack.tools import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    """A network interface."""

    name: str
    mac: str  # empty if it has none
    addresses: tuple[IPv4Interface | IPv6Interface, ...]  # without link-local ones

    def has(self, address: Address) -> bool:
        """True if `address` is its own."""
        return any(own.ip == address for own in self.addresses)

    def network_of(self, addresses: Sequence[Address]) -> Network | None:
        """Its subnet with the first of `addresses` that it has, else its first subnet, IPv4 before IPv6."""
        ordered = sorted(self.addresses, key=lambda own: (own.ip not in addresses, own.version))
        return ordered[0].network if ordered else None


def interfaces() -> list[Interface]:
    """All interfaces. Raises InputError if ip(8) is not installed, WorkError if it fails."""
    if problems := tools.missing(["ip"], reason="to find out this machine's addresses"):
        raise InputError(*problems)
    return [*_read(tools.run("ip", "-json", "address", "show"))]


def _read(output: bytes) -> Iterator[Interface]:
    for entry in json.loads(output):
        if "ifname" in entry:  # it prints an empty object for each that it leaves out
            own = [ip_interface(f"{one['local']}/{one['prefixlen']}") for one in entry["addr_info"] if "local" in one]
            addresses = tuple(address for address in own if not address.ip.is_link_local)
            yield Interface(name=entry["ifname"], mac=entry.get("address", ""), addresses=addresses)


def find(name: str, known: Sequence[Interface]) -> Interface:
    """The interface of that name. Raises InputError."""
    if found := next((one for one in known if one.name == name), None):
        return found
    message = f"this machine has no network interface {name}"
    hint = f"choose from {', '.join(one.name for one in known)}"
    raise InputError(Problem(reference="serve-interface", message=message, hint=hint))


def resolve(hosts: Sequence[str]) -> list[Address]:
    """The addresses of the hosts of URLs; of names, those that this machine finds."""
    found: list[Address] = []
    for host in hosts:
        try:
            found += [ip_address(str(info[4][0])) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except (OSError, ValueError):
            continue
    return found
