"""Checks that an image can boot over PXE and start the agent."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import dracut


def bootable(subject: Subject) -> Iterator[Problem]:
    """Reasons why an image cannot boot or start the agent."""
    image = subject.image
    for path in image.network.kernels:
        if (entry := image.media.find(path)) and not entry.size:
            yield Problem(
                reference="kernel-empty",
                message=f"the kernel {path} of {image.path} is an empty file",
                hint="copy the image again, or rebuild it",
            )
    if image.tree and image.systemd is None:
        yield Problem(
            reference="image-no-systemd",
            message=f"the root filesystem of {image.path} has no systemd, which starts the agent",
            hint="use an image that boots with systemd",
        )


def boot_warnings(subject: Subject) -> Iterator[Problem]:
    """Warnings about what may go wrong at boot."""
    if any(dracut.getarg(entry.arguments, dracut.CHECK) is not None for entry in subject.menu.entries):
        yield Problem(
            reference="media-check",
            message="an entry of grub.cfg has rd.live.check, but a packed ISO has no embedded MD5 checksum",
            hint="remove rd.live.check from the image's kernel arguments; SHA256SUMS has the ISO's digest",
            severity="warning",
        )
