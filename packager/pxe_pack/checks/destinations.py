"""Checks for artifacts placed on a tmpfs, which takes memory and has a limited size.

Source: systemd, units/tmp.mount and src/shared/mount-setup.c (/run gets a fifth of the memory, /tmp and /dev/shm half).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject

# Default size of each tmpfs on a node: 1/N of the memory.
_TMPFS = {"/run": 5, "/tmp": 2, "/dev/shm": 2}  # noqa: S108
_SHARES = {5: "a fifth", 2: "half"}


def destinations(subject: Subject) -> Iterator[Problem]:
    """Artifacts placed on a tmpfs: notes, or warnings if one is too large for it."""
    if subject.config is None:
        return
    for artifact in subject.config.artifacts:
        folder = next((one for one in _TMPFS if artifact.dest == one or artifact.dest.startswith(f"{one}/")), None)
        if folder:
            share, size = _TMPFS[folder], artifact.size or subject.local_sizes.get(artifact.name, 0)
            too_large = subject.node_memory is not None and size * share > subject.node_memory
            yield Problem(
                reference="dest-tmpfs",
                message=f"artifact {artifact.name} goes to {artifact.dest}, but {folder} is a tmpfs: it holds "
                f"at most {_SHARES[share]} of the node's memory",
                hint="use a dest below /var or /srv, or on a disk",
                severity="warning" if too_large else "note",
            )
