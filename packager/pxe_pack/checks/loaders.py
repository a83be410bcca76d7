"""Checks that the boot loaders can continue over TFTP and find grub.cfg, using the findings of `image.netboot`."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.trust import signed_boot


def loaders(subject: Subject) -> Iterator[Problem]:
    """Reasons why GRUB cannot continue after it was loaded over the network."""
    found = subject.loaders
    if found is None:
        if subject.layout and not signed_boot.programs(subject.layout):
            yield Problem(
                reference="image-no-boot-loader",
                message=f"{subject.layout.root} has no GRUB for UEFI",
                hint="pack the image again, if needed with another shim and GRUB (--boot-loader)",
            )
        return  # for an image, choose_loaders has reported it
    names = ", ".join(found.files)
    of_root = subject.image.facts.machine
    if of_root and of_root != found.machine:
        yield Problem(
            reference="boot-loader-machine",
            message=f"{names} are for {found.machine}, but the root filesystem is for {of_root}",
            hint=f"pack the image again with shim and GRUB for {of_root} (--boot-loader)",
        )
    if found.netboot.obstacle:
        yield Problem(
            reference="grub-no-network",
            message=f"{names} cannot boot over the network: {found.netboot.obstacle}",
            hint="use shim and a GRUB built for network boot; distributions ship a signed one",
        )
    elif not subject.has(found.netboot.config):
        yield Problem(
            reference="grub-prefix",
            message=f"GRUB reads {found.netboot.config}, which is not in the layout: a node stops at `grub>`",
            hint="add a file there that loads /boot/grub2/grub.cfg; pxe-pack does this when it packs the image",
        )
