"""What is known of a program's signatures. Importing it is cheap; `authenticode` reads them, with cryptography."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pxe_pack.image.pe.certificates import name

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """A signature of a program."""

    certificates: tuple[x509.Certificate, ...] = ()  # the signer's first, then the others in the signature
    flaw: str = ""  # why it is not valid; empty if the signer signed this very program
    unsupported: bool = False  # its algorithms are unknown here, so nothing is known about it

    @property
    def intact(self) -> bool:
        """True if the signer signed this very program."""
        return not self.flaw

    @property
    def signer(self) -> str:
        """The signer's common name, else its full name."""
        return name(self.certificates[0]) if self.certificates else "an unknown signer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """The signatures of a program."""

    signatures: tuple[Signature, ...] = ()
    digest: bytes = b""  # its Authenticode digest, SHA-256; empty if its sections overlap
