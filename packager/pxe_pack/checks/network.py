"""Whether the root filesystem brings the network up, for the agent to fetch by."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import networking


def root_network(subject: Subject) -> Iterator[Problem]:
    """A root filesystem in which nothing asks DHCP."""
    tree = subject.image.tree
    if tree and not networking.dhcp(tree):
        yield Problem(
            reference="root-no-dhcp",
            message="nothing that is seen in the root filesystem asks for an address by DHCP: the agent may find no "
            "network",
            hint="enable systemd-networkd with a .network file that has DHCP=yes, or NetworkManager",
            severity="warning",
        )
