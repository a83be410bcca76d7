"""Whether artifacts go where they stay: what is on a tmpfs takes memory, of which it gets a part only.

Source: systemd, units/tmp.mount and src/shared/mount-setup.c (/run gets a fifth of the memory, /tmp and /dev/shm half).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject

_TMPFS = ("/run", "/tmp", "/dev/shm")  # noqa: S108  of a node


def destinations(subject: Subject) -> Iterator[Problem]:
    """Artifacts that go to a tmpfs."""
    if subject.config is None:
        return
    for artifact in subject.config.artifacts:
        folder = next((one for one in _TMPFS if artifact.dest == one or artifact.dest.startswith(f"{one}/")), None)
        if folder:
            share = "a fifth" if folder == "/run" else "half"
            yield Problem(
                reference="dest-tmpfs",
                message=f"artifact {artifact.name} goes to {artifact.dest}, and {folder} is a tmpfs: it holds {share} "
                "of the node's memory at most",
                hint="choose a folder below /var or /srv, or a disk",
                severity="warning",
            )
