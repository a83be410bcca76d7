"""Examine a UEFI program: what it is, for which processor, who signed it, and what it loads."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from pxe_pack.image.grub.efi_image import GrubImage, read_grub
from pxe_pack.image.pe import authenticode
from pxe_pack.image.pe.authenticode import Signature
from pxe_pack.image.pe.program import PeError, read_program


@dataclass(frozen=True, kw_only=True, slots=True)
class EfiProgram:
    """A UEFI program."""

    path: str  # on the medium, or in the layout
    machine: str  # as in `uname -m`; empty if it is not a PE program
    signatures: tuple[Signature, ...] = ()
    grub: GrubImage | None = None  # None: it is not GRUB
    vendor: tuple[x509.Certificate, ...] = field(default=(), repr=False)  # of a shim: the certificates it trusts

    @property
    def kind(self) -> str:
        """GRUB, shim, EFI program, or no EFI program."""
        if self.grub:
            return "GRUB"
        if self.vendor:
            return "shim"
        return "EFI program" if self.machine else "no EFI program"


def examined(path: str, data: bytes) -> EfiProgram:
    """The program in `data`, whose path is `path`."""
    try:
        machine = read_program(data).machine
    except PeError:
        return EfiProgram(path=path, machine="")
    return EfiProgram(
        path=path,
        machine=machine,
        signatures=authenticode.signatures(data),
        grub=read_grub(data),
        vendor=authenticode.vendor_certificates(data),
    )
