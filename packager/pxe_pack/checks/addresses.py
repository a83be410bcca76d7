"""Checks what the hosts in URLs need: a DNS server for names, and a GRUB that knows DHCPv6 for IPv6 addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import resolver
from pxe_pack.image.grub.arguments import address
from pxe_pack.image.grub.words import unknown_variable
from pxe_pack.layout import kernel_arguments
from pxe_pack.node_urls import contacted_hosts, host_of

_DHCPV6 = "net_bootp6"  # a command of the GRUBs that know it: those of Debian, Fedora and SUSE


def names(subject: Subject) -> Iterator[Problem]:
    """A note with the host names in URLs: nodes can look them up only if DHCP announces a DNS server."""
    found = dict.fromkeys(
        host
        for host in _hosts(subject)
        if host not in ("", "localhost") and not resolver.is_address(host) and not unknown_variable(host)
    )
    if found:
        yield Problem(
            reference="url-host-name",
            message=f"nodes have to look up {', '.join(found)}, so DHCP must announce a DNS server",
            hint="for dnsmasq: `pxe-pack snippet dnsmasq --dns ADDRESS`; or use URLs with addresses",
            severity="note",
        )


def grub_over_ipv6(subject: Subject) -> Iterator[Problem]:
    """A warning if the ISO has an IPv6 address, and GRUB cannot take its own address from DHCPv6."""
    grub = subject.loaders.grub if subject.loaders else None
    if isinstance(address(subject.boot_url), IPv6Address) and grub and _DHCPV6 not in grub.commands:
        yield Problem(
            reference="grub-no-ipv6",
            message=f"the ISO is at {subject.boot_url}, but this GRUB has no DHCPv6: it loads no grub.cfg over IPv6",
            hint="boot nodes over IPv4 (they then fetch the ISO over IPv6), or use another GRUB (--boot-loader)",
            severity="warning",
        )


def _hosts(subject: Subject) -> Iterator[str]:
    """The hosts that nodes contact: for the ISO, for what the layout serves, and by their configuration."""
    listed = subject.layout.files.values() if subject.layout else ()
    for url in (subject.boot_url, *(file.url or "" for file in listed)):
        yield host_of(url)
    if subject.config:
        yield from contacted_hosts(subject.config, artifact_url=subject.artifact_url)
    for entry in subject.menu.entries:
        for url in entry.agent_values(kernel_arguments.CONFIG):
            yield host_of(url)
