"""Checks that the root filesystem configures the network, which the agent needs, and can resolve names."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import networking, resolver
from pxe_pack.node_urls import contacted_hosts


def root_network(subject: Subject) -> Iterator[Problem]:
    """Warnings if no DHCP client is found in the root filesystem, or if it cannot resolve names that are needed."""
    tree = subject.image.tree
    if tree is None:
        return
    if not networking.dhcp(tree, subject.enabled):
        yield Problem(
            reference="root-no-dhcp",
            message="no DHCP client is enabled in the root filesystem, so the agent may have no network",
            hint="enable systemd-networkd with a .network file that has DHCP=yes, or NetworkManager",
            severity="warning",
        )
    hosts = contacted_hosts(subject.config, artifact_url=subject.artifact_url) if subject.config else []
    names = {host for host in hosts if host != "localhost" and not resolver.is_address(host)}
    names -= resolver.known_hosts(tree) if names else names
    if names and (fault := resolver.fault(tree, subject.enabled)):
        yield Problem(
            reference="root-resolv-conf",
            message=f"nodes may not find {', '.join(sorted(names))}: in the root filesystem, /etc/resolv.conf {fault}",
            hint="enable systemd-resolved and link it to /run/systemd/resolve/stub-resolv.conf, or use addresses",
            severity="note" if resolver.is_missing(tree) else "warning",
        )
