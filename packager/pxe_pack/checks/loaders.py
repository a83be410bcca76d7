"""Whether the boot loaders, loaded over TFTP, go on there: what GRUB reads there, as `image.netboot` finds."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject


def loaders(subject: Subject) -> Iterator[Problem]:
    """What keeps GRUB from going on once it was loaded over the network."""
    found = subject.loaders
    if found is None:
        if subject.layout:
            yield Problem(
                reference="image-no-boot-loader",
                message=f"{subject.layout.root} has no GRUB for UEFI",
                hint="pack the image again; --boot-loader gives another shim and GRUB",
            )
        return  # of an image that is told where others are looked for
    names = ", ".join(found.files)
    of_root = subject.image.facts.machine
    if of_root and of_root != found.machine:
        yield Problem(
            reference="boot-loader-machine",
            message=f"{names} are for {found.machine}, and the root filesystem is for {of_root}",
            hint="pack the image again; --boot-loader gives shim and GRUB of the right kind",
        )
    if found.netboot.obstacle:
        yield Problem(
            reference="grub-no-network",
            message=f"{names} cannot boot over the network: {found.netboot.obstacle}",
            hint="give shim and a GRUB made for the network, as distributions sign it beside the one for disks",
        )
    elif not subject.has(found.netboot.config):
        yield Problem(
            reference="grub-prefix",
            message=f"GRUB looks for {found.netboot.config}, which the layout does not have: a node ends at `grub>`",
            hint="put a grub.cfg there that leads to /boot/grub2/grub.cfg, as pxe-pack does when it packs the image",
        )
