"""Whether an image can boot by PXE, and start the agent."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.liveos import LiveImage


def bootable(image: LiveImage) -> Iterator[Problem]:
    """What keeps `image` from booting by PXE, and the agent from running in it."""
    for name, facts in image.initrds.items() if image.live else ():
        lacking = [
            what for what, has in (("livenet", facts.livenet), ("dmsquash-live", facts.dmsquash_live)) if not has
        ]
        if facts.readable and lacking:
            yield Problem(
                reference="initrd-not-live",
                message=f"the initrd {name} has no {' and no '.join(lacking)}: it cannot boot a LiveOS from a URL",
                hint=f"build it with dracut --add '{' '.join(lacking)}'",
            )
    if image.tree and image.systemd is None:
        yield Problem(
            reference="image-no-systemd",
            message=f"the root filesystem of {image.path} has no systemd, which is to start the agent",
            hint="pxe-pack packs images that boot with systemd",
        )


def doubtful(image: LiveImage) -> Iterator[Problem]:
    """What may go wrong at boot, and need not: warnings."""
    if any(word in ("rd.live.check", "rd.live.check=1") for entry in image.network.arguments for word in entry):
        yield Problem(
            reference="media-check",
            message="an entry of grub.cfg has rd.live.check, and the packed ISO has no MD5 of its own to be checked by",
            hint="take rd.live.check out of the image's kernel arguments; SHA256SUMS has the ISO's digest",
            severity="warning",
        )
