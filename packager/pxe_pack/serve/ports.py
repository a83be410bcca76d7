"""Whether the servers' ports are free, and open to this user, before any of the servers is started."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.layout.site import Address

TFTP, DHCP, PROXY_DHCP, DHCP6 = 69, 67, 4011, 547  # UDP; IANA's service names and port numbers
_ANY: tuple[Address, ...] = (IPv4Address("0.0.0.0"), IPv6Address("::"))  # noqa: S104  what servers listen on by default
_HOLDER = re.compile(r'"([^"]+)",pid=(\d+)')


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """A port that a server will listen at."""

    number: int
    kind: str  # "tcp" or "udp"
    purpose: str  # as in "HTTP"
    addresses: tuple[Address, ...] = ()  # empty: all

    def __str__(self) -> str:
        return f"{self.kind.upper()} {self.number} ({self.purpose})"


def problems(ports: Sequence[Port]) -> Iterator[Problem]:
    """A problem for each port that a server could not listen at."""
    for port in ports:
        for address in port.addresses or _ANY:
            if found := _problem(port, address):
                yield found
                break


def _problem(port: Port, address: Address) -> Problem | None:
    try:
        _try(port, address)
    except PermissionError:
        message = f"only root may listen at {port}"
        hint = "run it as root (sudo), or serve only HTTP at a port above 1023: --unprivileged"
        if port.kind == "tcp":
            hint = "run it as root (sudo), or change the port: pxe-pack relocate DIR --boot-url http://HOST:8080/…"
        return Problem(reference="serve-privileges", message=message, hint=hint)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:  # a kernel without IPv6
            return None
        holder = _holder(port)
        message = f"cannot listen at {port}: {error.strerror}{f': {holder} does' if holder else ''}"
        hint = "stop that program" if address.is_loopback else "stop that program, or choose another --interface"
        return Problem(reference="serve-port", message=message, hint=hint)
    return None


def _try(port: Port, address: Address) -> None:
    """Listen at the port for a moment. Raises OSError."""
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if port.kind == "tcp" else socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.kind == "tcp" or port.number != TFTP:
            # connections that have just ended do not matter; DHCP servers of several interfaces share their port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((str(address), port.number))
        if port.kind == "tcp":
            probe.listen(1)


def _holder(port: Port) -> str:
    """The program that listens at the port, as ss(8) finds it; empty if it cannot."""
    if tools.find("ss") is None:
        return ""
    kind = "--tcp" if port.kind == "tcp" else "--udp"
    listing = tools.run("ss", "-Hlnp", kind, f"sport = :{port.number}").decode(errors="replace")
    found = dict.fromkeys(f"{name} (pid {pid})" for name, pid in _HOLDER.findall(listing))
    return next(iter(found), "")
