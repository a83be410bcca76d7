"""Checks the boot loaders for Secure Boot: each signed, unmodified, and trusted by the one before it.

Source: UEFI 2.10, 32; shim's README (it trusts the firmware's keys, keys enrolled as MOK, and its vendor's key).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.efi import EfiProgram
from pxe_pack.image.pe.authenticode import name, trusted


def secure_boot(subject: Subject) -> Iterator[Problem]:
    """Programs that a node with Secure Boot would refuse: warnings for bad signatures, notes for missing ones."""
    kernels = [kernel.program for kernel in subject.programs.kernels.values()]
    shim = next((program for program in subject.programs.loaders if program.vendor), None)
    for program in [*subject.programs.loaders, *kernels]:
        if not program.signatures:
            yield Problem(
                reference="secure-boot-unsigned",
                message=f"{program.path} is not signed, so a node with Secure Boot refuses it",
                hint="disable Secure Boot, or use programs signed by the distribution",
                severity="note",
            )
        elif not any(one.intact for one in program.signatures):
            yield Problem(
                reference="secure-boot-changed",
                message=f"{program.path} was modified after {program.signatures[0].signer} signed it",
                hint="copy the original file again, or sign the file again",
                severity="warning",
            )
        elif shim and program is not shim and not _trusts(shim, program):
            yield Problem(
                reference="secure-boot-untrusted",
                message=f"{program.path} is signed by {program.signatures[0].signer}, but {shim.path} only trusts "
                f"{', '.join(name(one) for one in shim.vendor)}: a node with Secure Boot refuses it",
                hint="use shim, GRUB and kernel of one distribution, or enroll the signer's key on the nodes (MOK)",
                severity="warning",
            )


def _trusts(shim: EfiProgram, program: EfiProgram) -> bool:
    return any(trusted(signature, shim.vendor) for signature in program.signatures)
