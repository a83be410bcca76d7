"""Secure Boot signatures: who signed a program, whether it is unmodified, and which certificates a shim trusts.

Sources: UEFI 2.10, 32.2 (signatures in a PE program's certificate table); "Windows Authenticode Portable Executable
Signature Format" (PKCS #7 with the digest of the program without its checksum and signatures); shim's cert.S (the
certificates it trusts besides the firmware's keys, in the section `.vendor_cert`).
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from pxe_pack.image.pe.program import PeError, PeProgram, read_program

_ENTRY = struct.Struct("<IHH")  # WIN_CERTIFICATE: length, revision, type
_PKCS7 = 2  # WIN_CERT_TYPE_PKCS_SIGNED_DATA
# DigestInfo of SHA-256 up to the digest itself (RFC 8017, 9.2), as SpcIndirectDataContent has it
_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")
_VENDOR_SECTION = ".vendor_cert"
_VENDOR = struct.Struct("<IIII")  # size of the trusted list, size of the revoked list, offset of each


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """A signature of a program."""

    certificates: tuple[x509.Certificate, ...]  # the signer's first, then the others in the signature
    intact: bool  # the program has the signed digest

    @property
    def signer(self) -> str:
        """The signer's common name, else its full name."""
        return name(self.certificates[0])


def name(certificate: x509.Certificate) -> str:
    """The common name of a certificate's subject, else the full subject (RFC 4514)."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else certificate.subject.rfc4514_string()


def signatures(data: bytes) -> tuple[Signature, ...]:
    """The signatures of the program `data`; empty if it has none, or is not a PE program."""
    try:
        program = read_program(data)
    except PeError:
        return ()
    signed = _SHA256 + _digest(data, program)
    return tuple(
        Signature(certificates=certificates, intact=signed in blob)
        for blob in _blobs(data, program)
        if (certificates := _certificates(blob))
    )


def vendor_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates built into the shim `data`; empty if it is not a shim, or has a list of hashes instead."""
    try:
        section = read_program(data).section(data, _VENDOR_SECTION)
        size, _, at, _ = _VENDOR.unpack_from(section)
        return (x509.load_der_x509_certificate(section[at : at + size]),)
    except (PeError, struct.error, ValueError):
        return ()


def issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Whether `by` issued `certificate`, or equals it."""
    if certificate == by:
        return True
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def trusted(signature: Signature, anchors: tuple[x509.Certificate, ...]) -> bool:
    """Whether a chain of the signature's certificates leads from the signer to one of `anchors`."""
    at = signature.certificates[0]
    for _ in signature.certificates:
        if any(issued(at, anchor) for anchor in anchors):
            return True
        above = next((one for one in signature.certificates if one != at and issued(at, one)), None)
        if above is None:
            return False
        at = above
    return False


def _digest(data: bytes, program: PeProgram) -> bytes:
    end = program.certificates.offset if program.certificates.size else len(data)
    digest = hashlib.sha256(data[: program.checksum_at])
    digest.update(data[program.checksum_at + 4 : program.security_at])
    digest.update(data[program.security_at + 8 : end])
    return digest.digest()


def _blobs(data: bytes, program: PeProgram) -> Iterator[bytes]:
    """Each PKCS #7 structure in the certificate table, without padding."""
    at, end = program.certificates.offset, program.certificates.offset + program.certificates.size
    while at + _ENTRY.size <= end:
        length, _, kind = _ENTRY.unpack_from(data, at)
        if length <= _ENTRY.size or at + length > end:
            return
        if kind == _PKCS7:
            blob = data[at + _ENTRY.size : at + length]
            yield blob[: _der_size(blob)]
        at += (length + 7) & ~7


def _der_size(blob: bytes) -> int:
    """The size of the DER value at the start of `blob` (X.690, 8.1.3); all of it if the length is indefinite."""
    first = blob[1] if len(blob) > 1 else 0
    if first & 0x80 == 0:
        return 2 + first
    count = first & 0x7F
    return 2 + count + int.from_bytes(blob[2 : 2 + count], "big") if count else len(blob)


def _certificates(blob: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in a PKCS #7 structure; the signer's, which issued none of the others, comes first."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about BER encoding, which it reads all the same
            found = pkcs7.load_der_pkcs7_certificates(blob)
    except ValueError:
        return ()
    issuers = {one.issuer for one in found if one.issuer != one.subject}
    return tuple(sorted(found, key=lambda one: one.subject in issuers))
