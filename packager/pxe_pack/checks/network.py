"""Checks that the root filesystem configures the network, which the agent needs."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import networking


def root_network(subject: Subject) -> Iterator[Problem]:
    """A warning if no DHCP client is found in the root filesystem."""
    tree = subject.image.tree
    if tree and not networking.dhcp(tree):
        yield Problem(
            reference="root-no-dhcp",
            message="no DHCP client is enabled in the root filesystem, so the agent may have no network",
            hint="enable systemd-networkd with a .network file that has DHCP=yes, or NetworkManager",
            severity="warning",
        )
