"""Secure Boot signatures: who signed a program, and whether the signature is valid.

Sources: UEFI 2.10, 32.2 (signatures in a PE program's certificate table); "Windows Authenticode Portable Executable
Signature Format" (the digest of a program, and where the signature has it); RFC 2315 and RFC 5652, 5.4 (PKCS #7: the
signer signs attributes, which have the digest of the content, which has the digest of the program).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from asn1crypto import algos, cms, core
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from pxe_pack.image.limits import Limit
from pxe_pack.image.pe.certificates import load
from pxe_pack.image.pe.program import PeProgram
from pxe_pack.image.pe.signature import Signature, Signed

_ENTRY = struct.Struct("<IHH")  # WIN_CERTIFICATE: length, revision, type
_PKCS7 = 2  # WIN_CERT_TYPE_PKCS_SIGNED_DATA
_HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
# What asn1crypto and its lazy values raise for damaged structures
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError)


def signed(data: bytes, program: PeProgram) -> Signed:
    """The signatures of `program`, whose bytes are `data`. Never raises for what is in them."""
    digests = {"sha256": _digest(data, program, "sha256")}
    found: list[Signature] = []
    for blob in _blobs(data, program):
        if len(found) == Limit.SIGNATURES.most:
            break
        if len(blob) > Limit.SIGNATURE_SIZE.most:
            found.append(Signature(flaw=f"it has more than {Limit.SIGNATURE_SIZE.most:,} bytes"))
            continue
        try:
            found.append(_signature(blob, data, program, digests))
        except _Unsupported as error:
            found.append(Signature(certificates=error.certificates, flaw=str(error), unsupported=True))
        except _DAMAGED:
            found.append(Signature(flaw="it is damaged"))
    if program.certificates.size and not found:
        found.append(Signature(flaw="it is damaged"))
    return Signed(signatures=tuple(found), digest=digests["sha256"])


class _Unsupported(Exception):  # noqa: N818  an outcome, not an error
    """An algorithm is not known here."""

    def __init__(self, algorithm: str, certificates: tuple[x509.Certificate, ...] = ()) -> None:
        super().__init__(f"it has the unsupported algorithm {algorithm}")
        self.certificates = certificates


class _DigestInfo(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types
    """RFC 8017, 9.2."""

    _fields = [("algorithm", algos.DigestAlgorithm), ("digest", core.OctetString)]  # noqa: RUF012  as asn1crypto asks


class _IndirectData(core.Sequence):  # type: ignore[misc]
    """SpcIndirectDataContent: what kind of file it is, and its digest."""

    _fields = [("data", core.Any), ("digest", _DigestInfo)]  # noqa: RUF012


def _signature(blob: bytes, data: bytes, program: PeProgram, digests: dict[str, bytes]) -> Signature:
    """The signature in a PKCS #7 structure. Raises _Unsupported, and _DAMAGED."""
    structure = cms.ContentInfo.load(blob)["content"]
    content = structure["encap_content_info"]["content"].parse(_IndirectData)
    (signer,) = structure["signer_infos"]  # UEFI allows one
    certificates = _certificates(structure, signer)
    if not certificates:
        return Signature(flaw="it lacks the signer's certificate")
    info = content["digest"]
    algorithm = _known(info["algorithm"]["algorithm"].native, certificates)
    if algorithm not in digests:
        digests[algorithm] = _digest(data, program, algorithm)
    if not digests[algorithm]:
        return Signature(certificates=certificates, flaw="sections of the program overlap")
    if info["digest"].native != digests[algorithm]:
        return Signature(certificates=certificates, flaw="the program was modified after it was signed")
    hashed_with = _known(signer["digest_algorithm"]["algorithm"].native, certificates)
    message = bytes(content.contents)
    if attributes := signer["signed_attrs"]:
        (digest,) = (one["values"][0].native for one in attributes if one["type"].native == "message_digest")
        if digest != hashlib.new(hashed_with, message).digest():
            return Signature(certificates=certificates, flaw="its digest was modified after it was signed")
        message = b"\x31" + attributes.dump()[1:]  # as a SET, whatever its tag in the structure (RFC 5652, 5.4)
    if not _verifies(certificates, signer["signature"].native, message, algorithm=hashed_with):
        return Signature(certificates=certificates, flaw="the signer's key did not make it")
    return Signature(certificates=certificates)


def _known(algorithm: str, certificates: tuple[x509.Certificate, ...]) -> str:
    if algorithm not in _HASHES:
        raise _Unsupported(algorithm, certificates)
    return algorithm


def _certificates(structure: cms.SignedData, signer: cms.SignerInfo) -> tuple[x509.Certificate, ...]:
    """The certificates in the structure, the signer's first; empty if that one is missing or cannot be parsed."""
    wanted = signer["sid"].chosen
    own: list[x509.Certificate] = []
    others: list[x509.Certificate] = []
    for _, each in zip(range(Limit.SIGNATURE_CERTIFICATES.most), structure["certificates"], strict=False):
        one = each.chosen
        if made := load(one.dump()):
            same = one.serial_number == wanted["serial_number"].native and one.issuer == wanted["issuer"]
            (own if same else others).append(made)
    return (*own, *others) if own else ()


def _verifies(certificates: tuple[x509.Certificate, ...], signature: bytes, message: bytes, *, algorithm: str) -> bool:
    """True if the signer's key made `signature`."""
    kind = _HASHES[algorithm]()
    try:
        key = certificates[0].public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), kind)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(kind))
        else:
            raise _Unsupported(type(key).__name__, certificates)
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm as error:
        raise _Unsupported(str(error), certificates) from error
    return True


def _digest(data: bytes, program: PeProgram, algorithm: str) -> bytes:
    """The Authenticode digest; empty if sections overlap, which firmware does not start."""
    table = program.certificates
    pieces = sorted((one for one in program.raw_sections if one.size), key=lambda one: one.offset)
    hashed = program.headers_size + sum(one.size for one in pieces)
    if hashed > len(data):
        return b""
    view = memoryview(data)
    digest = hashlib.new(algorithm, view[: program.checksum_at])
    digest.update(view[program.checksum_at + 4 : program.security_at])
    digest.update(view[program.security_at + 8 : program.headers_size])
    for one in pieces:
        digest.update(view[one.offset : one.offset + one.size])
    digest.update(view[hashed : len(data) - table.size])  # what follows the sections, without the signatures
    return digest.digest()


def _blobs(data: bytes, program: PeProgram) -> Iterator[bytes]:
    """Each PKCS #7 structure in the certificate table, with its padding."""
    at, end = program.certificates.offset, program.certificates.offset + program.certificates.size
    while at + _ENTRY.size <= end:
        length, _, kind = _ENTRY.unpack_from(data, at)
        if length <= _ENTRY.size or at + length > end:
            return
        if kind == _PKCS7:
            yield data[at + _ENTRY.size : at + length]
        at += (length + 7) & ~7
