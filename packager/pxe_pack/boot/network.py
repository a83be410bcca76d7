"""The node's network: this machine answers for the production addresses, without privileges.

QEMU's slirp passes each TCP connection to one of the layout's addresses to a command of ours (`guestfwd`, qemu(1)). It
does so only within the node's own subnet, so the subnet is chosen to cover those addresses. That way the layout boots
with the URLs it was packed with. All other traffic is routed normally by slirp. Why: docs/decisions/0004.
"""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError

HOST = IPv4Address("10.0.2.2")  # where a QEMU guest expects its host's loopback by default
GUESTFWD = Path(__file__).with_name("guestfwd.py")
WIDEST_WITH_HOST = 16  # shortest prefix up to which the subnet is widened to include HOST
WIDEST = 8  # a shorter prefix would cut the node off from most of the Internet
USUAL = 24  # prefix length


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Endpoint:
    """An address and TCP port."""

    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """The node's subnet and the addresses in it."""

    subnet: IPv4Network
    host: IPv4Address  # the router; this machine's loopback
    dns: IPv4Address
    node: IPv4Address
    report: Endpoint  # where the agent posts its report
    endpoints: Mapping[str, Endpoint]  # host and port as in the URLs -> endpoint that answers for it

    @property
    def report_url(self) -> str:
        """The URL the agent posts its state to."""
        return f"http://{self.report.address}/report"

    def netdev(self, *, tftp: Path, boot_file: str, server: Path) -> str:
        """The value of QEMU's -netdev option (qemu(1)); `server` is the Unix socket that accepts the connections."""
        options = [
            "user,id=net,ipv6=off",
            f"net={self.subnet},host={self.host},dns={self.dns},dhcpstart={self.node}",
            f"tftp={_escape(str(tftp))},bootfile={_escape(boot_file)}",
        ]
        for endpoint in sorted({*self.endpoints.values(), self.report}):
            command = shlex.join([sys.executable, "-I", "-S", str(GUESTFWD), str(server), str(endpoint)])
            options.append(f"guestfwd=tcp:{endpoint}-cmd:{_escape(command)}")
        return ",".join(options)


def plan_network(urls: Iterable[str]) -> Network:
    """The network in which this machine answers for the hosts of `urls`. Raises InputError if that is impossible."""
    problems: list[Problem] = []
    endpoints: dict[str, Endpoint] = {}
    servers = {urlsplit(url)[:2]: url for url in urls}  # by scheme and netloc
    for (_, netloc), url in servers.items():
        try:
            endpoints[netloc] = _endpoint(url)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise InputError(*problems)
    emulated = {endpoint.address for endpoint in endpoints.values()}
    subnet = _cover({*emulated, HOST})
    if subnet.prefixlen < WIDEST_WITH_HOST:
        subnet = _cover(emulated)
    if subnet.prefixlen < WIDEST:
        raise InputError(
            Problem(
                reference="boot-networks-apart",
                message=f"{' and '.join(map(str, sorted(emulated)))} are too far apart to fit into one subnet",
                hint="for a test boot, pack with a --boot-url and an --artifact-url on the same host",
            )
        )
    first = HOST if HOST in subnet else min(emulated)
    near = IPv4Network(f"{first}/{USUAL}", strict=False)
    preferred = [near[last] for last in (2, 3, 4, 15, *range(16, 64)) if near[last] not in emulated]
    return Network(
        subnet=subnet,
        host=preferred[0],
        dns=preferred[1],
        report=Endpoint(address=preferred[2], port=80),
        node=preferred[3],
        endpoints=endpoints,
    )


def _endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        raise _cannot(
            f"this machine cannot answer for {parts.scheme}://{host}: "
            + ("it has no certificate for that host" if parts.scheme == "https" else "it can only serve http"),
            hint="for a test boot, pack with --boot-url http://… and --artifact-url http://…",
        )
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)}
        address = IPv4Address(str(min(found)))
    except (OSError, ValueError):
        raise _cannot(
            f"{host} in {url} does not resolve to an IPv4 address on this machine",
            hint="the node uses the same name server; for a test boot, pack with an address, as in http://10.0.0.1/",
        ) from None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise _cannot(
            f"{url} points to {ip_address(address)}, where a node reaches only itself",
            hint="pack with the address at which nodes reach the server",
        )
    return Endpoint(address=address, port=parts.port or 80)


def _cannot(message: str, *, hint: str) -> InputError:
    return InputError(Problem(reference="boot-url-unplayable", message=message, hint=hint))


def _cover(addresses: Iterable[IPv4Address]) -> IPv4Network:
    """The smallest subnet, a /24 or larger, that contains all of `addresses`."""
    numbers = [int(address) for address in addresses] or [int(HOST)]
    differing = (min(numbers) ^ max(numbers)).bit_length()
    return IPv4Network((numbers[0], min(USUAL, 32 - differing)), strict=False)


def _escape(text: str) -> str:
    """`text` as a value in a QEMU option: commas are doubled (qemu(1))."""
    return text.replace(",", ",,")
