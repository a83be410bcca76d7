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


def shared_identity(subject: Subject) -> Iterator[Problem]:
    """Warnings about SSH host keys and names for storage servers that all nodes would have from the image."""
    tree = subject.image.tree
    if tree is None:
        return
    if (keys := identity.host_keys(tree)) and identity.CLOUD_INIT not in subject.enabled:
        yield Problem(
            reference="root-host-keys",
            message=f"all nodes have the SSH host keys of the image, and everybody who can fetch it can read them: "
            f"{_shown(keys)}",
            hint="remove them from the image, and let each node make its own at boot: `ssh-keygen -A` before sshd",
            severity="warning",
        )
    if names := identity.storage_names(tree):
        yield Problem(
            reference="root-storage-name",
            message=f"{_shown(names)} gives all nodes the same name, so a storage server takes them for one machine",
            hint="remove the file from the image, and let each node make its own at boot",
            severity="warning",
        )


def _shown(paths: list[str]) -> str:
    return ", ".join(f"/{path}" for path in paths)
