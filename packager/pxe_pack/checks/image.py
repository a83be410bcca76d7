"""Whether an image can boot by PXE, and start the agent."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject


def bootable(subject: Subject) -> Iterator[Problem]:
    """What keeps the agent from being started in an image."""
    image = subject.image
    for path in image.network.kernels:
        if (entry := image.media.find(path)) and not entry.size:
            yield Problem(
                reference="kernel-empty",
                message=f"the kernel {path} of {image.path} is an empty file",
                hint="build the image again, or copy it again",
            )
    if image.tree and image.systemd is None:
        yield Problem(
            reference="image-no-systemd",
            message=f"the root filesystem of {image.path} has no systemd, which is to start the agent",
            hint="pxe-pack packs images that boot with systemd",
        )


def boot_warnings(subject: Subject) -> Iterator[Problem]:
    """What may go wrong at boot, and need not: warnings."""
    if any(word in ("rd.live.check", "rd.live.check=1") for entry in subject.menu.entries for word in entry.arguments):
        yield Problem(
            reference="media-check",
            message="an entry of grub.cfg has rd.live.check, and the packed ISO has no MD5 of its own to be checked by",
            hint="take rd.live.check out of the image's kernel arguments; SHA256SUMS has the ISO's digest",
            severity="warning",
        )
