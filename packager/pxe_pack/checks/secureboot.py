"""Checks the chain of Secure Boot: each program is signed, unmodified, and accepted by the one that starts it.

Firmware starts the first program if a certificate in its `db` issued the signer's. A shim verifies GRUB, and for GRUB
the kernel, against the same certificates, its vendor's, and those enrolled on a node as MOK; then it compares their
SBAT generations. Sources: UEFI 2.10, 32; shim, verify.c, pe.c (verify_sbat_section) and SBAT.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.efi import EfiProgram
from pxe_pack.image.pe.certificates import name, of_firmware, trusted
from pxe_pack.image.pe.sbat import PUBLISHED, Level
from pxe_pack.image.pe.shim import Keys, Shim
from pxe_pack.trust import signed_boot

_FIRMWARE = "Microsoft's UEFI CA"


def secure_boot(subject: Subject) -> Iterator[Problem]:
    """Programs that a node with Secure Boot would refuse: warnings for bad signatures, notes for missing ones."""
    if subject.layout and signed_boot.programs(subject.layout):
        return  # the kernel is in the signed program, which signedboot.py checks
    kernels = [kernel.program for kernel in subject.programs.kernels.values()]
    if not subject.programs.loaders:
        for kernel in kernels:
            yield from _signed(kernel)
        return
    first, *loaders = subject.programs.loaders
    yield from _signed(first)
    if first.shim:
        yield from _own_level(first, first.shim)
    if _valid(first) and not _trusted(first, Keys(certificates=of_firmware())):
        yield Problem(
            reference="secure-boot-own-key",
            message=f"{first.path} is signed by {first.signatures[0].signer}, not under {_FIRMWARE}: only nodes with "
            "that key in their firmware start it with Secure Boot",
            hint="enroll the key in the firmware of the nodes, or use the shim of a distribution",
            severity="warning" if first.shim else "note",  # Microsoft's signature is what a shim is for
        )
    for program, needs_sbat in [*((one, True) for one in loaders), *((one, False) for one in kernels)]:
        yield from _signed(program)
        if first.shim:
            yield from _started_by(first, first.shim, program, needs_sbat=needs_sbat)


def _signed(program: EfiProgram) -> Iterator[Problem]:
    """The program's own signatures."""
    if not program.signatures:
        yield Problem(
            reference="secure-boot-unsigned",
            message=f"{program.path} is not signed, so a node with Secure Boot refuses it",
            hint="disable Secure Boot, or use programs signed by the distribution",
            severity="note",
        )
    elif not _valid(program):
        one = next((one for one in program.signatures if one.unsupported), program.signatures[0])
        yield Problem(
            reference="secure-boot-unverified" if one.unsupported else "secure-boot-changed",
            message=f"the signature of {program.path} by {one.signer} "
            f"{'could not be verified' if one.unsupported else 'is not valid'}: {one.flaw}",
            hint="copy the original file again, or sign the file again",
            severity="note" if one.unsupported else "warning",
        )


def _started_by(first: EfiProgram, shim: Shim, program: EfiProgram, *, needs_sbat: bool) -> Iterator[Problem]:
    """Whether the shim `first` accepts `program`. What it starts itself needs an SBAT section, a kernel does not."""
    if _valid(program):
        if program.signed.digest in shim.refused.digests or _trusted(program, shim.refused):
            yield Problem(
                reference="secure-boot-revoked",
                message=f"{program.path} is on the list of programs that {first.path} refuses",
                hint="use the current version that the distribution ships with this shim",
                severity="warning",
            )
        elif not _trusted(program, shim.trusted) and not _trusted(program, Keys(certificates=of_firmware())):
            names = ", ".join(name(one) for one in shim.trusted.certificates) or _FIRMWARE
            yield Problem(
                reference="secure-boot-untrusted",
                message=f"{program.path} is signed by {program.signatures[0].signer}, but {first.path} only trusts "
                f"{names}: a node with Secure Boot refuses it",
                hint="use shim, GRUB and kernel of one distribution, or enroll the signer's key on the nodes (MOK)",
                severity="warning",
            )
    if shim.level:
        yield from _sbat(first, shim.level, program, needs_sbat=needs_sbat)


def _sbat(first: EfiProgram, level: Level, program: EfiProgram, *, needs_sbat: bool) -> Iterator[Problem]:
    refused = level.refused(program.sbat)
    if refused:
        lacks = f"has the SBAT generation {refused}, but {first.path} accepts {refused.name} from "
        lacks += f"{level.generations[refused.name]} on (SbatLevel {level.date})"
    elif not program.sbat and program.signatures and needs_sbat:
        lacks = f"has no valid SBAT section, which {first.path} requires"
    else:
        return
    yield Problem(
        reference="secure-boot-sbat",
        message=f"{program.path} {lacks}: a node with Secure Boot stops with `Security Violation`",
        hint="use the GRUB that the distribution ships with this shim; for Debian and Ubuntu, the newest one",
        severity="warning" if program.signatures else "note",  # unsigned ones are refused in any case
    )


def _own_level(first: EfiProgram, shim: Shim) -> Iterator[Problem]:
    """Whether the shim accepts itself: with its own level, and with the newest one that nodes may have."""
    for level, severity in ((shim.level, "warning"), (PUBLISHED, "note")):
        if level and (refused := level.refused(first.sbat)):
            yield Problem(
                reference="secure-boot-sbat-shim",
                message=f"{first.path} has the SBAT generation {refused}: it does not start on nodes with Secure Boot "
                f"whose SbatLevel is {level.date} or newer, which a newer shim or Windows has set",
                hint="use a newer shim of the distribution, with its GRUB",
                severity="warning" if severity == "warning" else "note",
            )
            return


def _valid(program: EfiProgram) -> bool:
    return any(one.intact for one in program.signatures)


def _trusted(program: EfiProgram, keys: Keys) -> bool:
    """Whether `keys` have the program's digest, or a certificate above one of its valid signatures."""
    return program.signed.digest in keys.digests or any(
        trusted(one.certificates, keys.certificates) for one in program.signatures if one.intact
    )
