"""The certificate of https layouts: made on request, and checked for the hosts in the layout's URLs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pxe_fetch.contract.problem import Problem
from pxe_pack.input_file import read_input
from pxe_pack.layout.site import Tls, address_of
from pxe_pack.tools import InputError

_VALID = timedelta(days=3650)
_CLOCKS = timedelta(days=1)  # nodes' clocks may be late


def make_certificate(tls: Tls, hosts: Sequence[str]) -> None:
    """Make a self-signed certificate for `hosts`, and its key, which only this user can read. Raises OSError.

    Nodes trust it if it is among their root certificates, so it has what RFC 5280 4.2.1 wants of one.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pxe-pack serve")])
    names = [x509.IPAddress(ip_address(host)) if address_of(host) else x509.DNSName(host) for host in hosts]
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(tls.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    tls.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def certificate_problems(tls: Tls, hosts: Sequence[str]) -> Iterator[Problem]:
    """Warnings about a certificate that nodes would refuse. Raises InputError if it cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificates(read_input(tls.certificate))[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a PEM certificate"
        message, hint = f"cannot read the certificate {tls.certificate}: {why}", "--tls-self-signed makes one"
        raise InputError(Problem(reference="tls-unreadable", message=message, hint=hint)) from None
    if uncovered := [host for host in hosts if not _covers(names, host)]:
        message = f"the certificate {tls.certificate} is not for {', '.join(uncovered)}: nodes will refuse it"
        hint = "get one with these names, or use its names in the layout's URLs: pxe-pack relocate"
        yield Problem(reference="tls-host", message=message, hint=hint, severity="warning")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        message = f"the certificate {tls.certificate} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        yield Problem(reference="tls-expired", message=message, hint="renew it", severity="warning")


def _covers(names: x509.SubjectAlternativeName, host: str) -> bool:
    """True if the certificate is for `host`; a wildcard stands for one label (RFC 9525, 6.3)."""
    if address := address_of(host):
        return address in names.get_values_for_type(x509.IPAddress)
    known = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return host in known or f"*.{host.partition('.')[2]}" in known
