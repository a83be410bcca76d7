"""X.509 certificates of Secure Boot: their names, who issued them, and those that firmware trusts.

`microsoft-uefi-ca-*.der` are Microsoft's two certificates for programs of others, from its repository
secureboot_objects (PreSignedObjects/DB/Certificates). Nearly all firmware has one or both in its `db`.

cryptography is imported on use: it takes longer than all else that a command without signed programs does.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_FIRMWARE = ("microsoft-uefi-ca-2011.der", "microsoft-uefi-ca-2023.der")


@functools.cache
def of_firmware() -> tuple[x509.Certificate, ...]:
    """The certificates that firmware usually trusts."""
    from cryptography import x509

    return tuple(x509.load_der_x509_certificate(Path(__file__).with_name(one).read_bytes()) for one in _FIRMWARE)


def load(der: bytes) -> x509.Certificate | None:
    """The certificate in `der`; None if it cannot be parsed."""
    from cryptography import x509

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about serial numbers and encodings that it reads all the same
            return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        return None


def name(certificate: x509.Certificate) -> str:
    """The common name of a certificate's subject, else the full subject (RFC 4514)."""
    from cryptography.x509.oid import NameOID

    try:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = str(common[0].value) if common else certificate.subject.rfc4514_string()
    except ValueError:  # the subject is parsed on first use
        return "an unreadable name"
    return text if text.isprintable() else repr(text)


def issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """True if `by` issued `certificate`, or equals it."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    if certificate == by:
        return True
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def trusted(chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]) -> bool:
    """True if certificates of `chain` lead from its first, the signer's, to one of `anchors`.

    As in firmware and shim, validity periods do not count.
    """
    if not chain:
        return False
    at = chain[0]
    for _ in chain:
        if any(issued(at, anchor) for anchor in anchors):
            return True
        above = next((one for one in chain if one != at and issued(at, one)), None)
        if above is None:
            return False
        at = above
    return False
