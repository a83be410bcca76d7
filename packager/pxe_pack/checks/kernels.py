"""Checks that the initrd and the root filesystem have modules for each kernel."""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image import rootfs


def kernels(subject: Subject) -> Iterator[Problem]:
    """Kernels for which only modules of another release exist."""
    tree = subject.image.tree
    in_root = rootfs.kernels(tree) if tree and subject.image.live else frozenset[str]()
    for entry in subject.menu.entries:
        kernel = subject.programs.kernels.get(subject.on_medium(entry.kernel))
        if kernel is None or not kernel.release:
            continue
        for name, facts in subject.initrds(entry):
            if facts.kernels and kernel.release not in facts.kernels:
                yield Problem(
                    reference="kernel-other-initrd",
                    message=f"{entry.kernel} is {kernel.release}, but the initrd {name} has modules for "
                    f"{', '.join(sorted(facts.kernels))}: a node cannot use its disks and its network",
                    hint=f"rebuild the initrd for this kernel: dracut --kver {kernel.release}",
                )
        if in_root and kernel.release not in in_root:
            yield Problem(
                reference="kernel-other-root",
                message=f"{entry.kernel} is {kernel.release}, but the root filesystem has modules for "
                f"{', '.join(sorted(in_root))}: a booted node cannot load any modules",
                hint="install this kernel's package in the root filesystem",
                severity="warning",
            )
