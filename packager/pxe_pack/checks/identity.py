"""Checks that each node gets an identity of its own."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import identity


def machine_id(subject: Subject) -> Iterator[Problem]:
    """A warning if all nodes would have the same machine-id."""
    given = [value for entry in subject.menu.entries for value in entry.values(identity.ARGUMENT)]
    fixed = next((f"the kernel argument {identity.ARGUMENT}={one}" for one in given if identity.is_fixed(one)), "")
    if not given and subject.image.tree and (path := identity.fixed_in(subject.image.tree)):
        fixed = f"/{path}"
    if fixed:
        yield Problem(
            reference="root-machine-id",
            message=f"{fixed} gives all nodes the same machine-id: a DHCP server may take them for one, and give all "
            "the same address",
            hint="truncate /etc/machine-id in the image (`: >/etc/machine-id`) and remove /var/lib/dbus/machine-id",
            severity="warning",
        )
