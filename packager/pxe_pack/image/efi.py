"""A program that UEFI starts, looked at: what it is, for which processor, who signed it, what it looks for."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from pxe_pack.image.grub.efi_image import GrubImage, read_grub
from pxe_pack.image.pe import authenticode
from pxe_pack.image.pe.authenticode import Signature
from pxe_pack.image.pe.program import PeError, read_program


@dataclass(frozen=True, kw_only=True, slots=True)
class EfiProgram:
    """A program for UEFI."""

    path: str  # on the medium, or in the layout
    machine: str  # as `uname -m` says it; empty when it is no PE program at all
    signatures: tuple[Signature, ...] = ()
    grub: GrubImage | None = None  # None: it is no GRUB
    vendor: tuple[x509.Certificate, ...] = field(default=(), repr=False)  # of a shim: whom it trusts

    @property
    def kind(self) -> str:
        """GRUB, shim, or what else it is."""
        if self.grub:
            return "GRUB"
        if self.vendor:
            return "shim"
        return "EFI program" if self.machine else "no EFI program"


def examined(path: str, data: bytes) -> EfiProgram:
    """What the program `data`, called `path`, is."""
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
