"""Whether the boot loaders hold under Secure Boot: each signed, as it was signed, by someone the one before trusts.

Source: UEFI 2.10, 32; shim's README (it trusts the firmware's keys, those enrolled as MOK, and its vendor's own).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.efi import EfiProgram
from pxe_pack.image.pe.authenticode import name, trusted


def secure_boot(subject: Subject) -> Iterator[Problem]:
    """What a node with Secure Boot would refuse: warnings where a signature is wrong, notes where there is none."""
    kernels = [kernel.program for kernel in subject.programs.kernels.values()]
    shim = next((program for program in subject.programs.loaders if program.vendor), None)
    for program in [*subject.programs.loaders, *kernels]:
        if not program.signatures:
            yield Problem(
                reference="secure-boot-unsigned",
                message=f"{program.path} is not signed: a node with Secure Boot refuses it",
                hint="have Secure Boot off, or take programs that the distribution signed",
                severity="note",
            )
        elif not any(one.intact for one in program.signatures):
            yield Problem(
                reference="secure-boot-changed",
                message=f"{program.path} is not what {program.signatures[0].signer} signed: it was changed since",
                hint="copy it again from where it came from, or sign it anew",
                severity="warning",
            )
        elif shim and program is not shim and not _trusts(shim, program):
            yield Problem(
                reference="secure-boot-untrusted",
                message=f"{program.path} is signed by {program.signatures[0].signer}, and {shim.path} trusts "
                f"{', '.join(name(one) for one in shim.vendor)}: a node with Secure Boot refuses it",
                hint="take shim, GRUB and kernel of one distribution, or enroll the signer's key on the nodes (MOK)",
                severity="warning",
            )


def _trusts(shim: EfiProgram, program: EfiProgram) -> bool:
    return any(trusted(signature, shim.vendor) for signature in program.signatures)
