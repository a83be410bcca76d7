"""Examine a UEFI program: what it is, for which processor, who signed it, and what it loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pxe_pack.image.grub.efi_image import GrubImage, read_grub
from pxe_pack.image.pe import sbat
from pxe_pack.image.pe.program import PeError, PeProgram, read_program
from pxe_pack.image.pe.sbat import Component
from pxe_pack.image.pe.shim import Shim, read_shim
from pxe_pack.image.pe.signature import Signature, Signed

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True, kw_only=True, slots=True)
class EfiProgram:
    """A UEFI program."""

    path: str  # on the medium, or in the layout
    machine: str  # as in `uname -m`; empty if it is not a PE program
    signed: Signed = field(default_factory=Signed)
    grub: GrubImage | None = None  # None: it is not GRUB
    shim: Shim | None = None  # None: it is not a shim
    sbat: tuple[Component, ...] = ()

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self.signed.signatures

    @property
    def trusts(self) -> tuple[x509.Certificate, ...]:
        """The certificates built into a shim."""
        return self.shim.trusted.certificates if self.shim else ()

    @property
    def kind(self) -> str:
        """GRUB, shim, EFI program, or no EFI program."""
        if self.grub:
            return "GRUB"
        if self.shim:
            return "shim"
        return "EFI program" if self.machine else "no EFI program"


def examined(path: str, data: bytes) -> EfiProgram:
    """The program in `data`, whose path is `path`."""
    try:
        program = read_program(data)
    except PeError:
        return EfiProgram(path=path, machine="")
    return EfiProgram(
        path=path,
        machine=program.machine,
        signed=_signed(data, program),
        grub=read_grub(data),
        shim=read_shim(data, program),
        sbat=sbat.components(data, program),
    )


def _signed(data: bytes, program: PeProgram) -> Signed:
    if not program.certificates.size:
        return Signed()
    from pxe_pack.image.pe.authenticode import signed  # imported late: cryptography takes a while

    return signed(data, program)
