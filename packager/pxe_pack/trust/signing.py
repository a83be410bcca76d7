"""Sign programs for Secure Boot with osslsigncode, which reads the private key; pxe-pack never does.

sbsign writes the current time into a signature, so that two packs of the same inputs would differ; osslsigncode takes
the time as an option. Source: osslsigncode(1).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.cleanup import temporary_folder
from pxe_pack.config import SecureBoot
from pxe_pack.image.efi import EfiProgram, examined
from pxe_pack.input_file import read_input
from pxe_pack.tools import InputError, WorkError

if TYPE_CHECKING:
    from cryptography import x509

PROGRAM = "osslsigncode"
_MOST = 64 << 10  # bytes of a file with a certificate
_PRIVATE = b"PRIVATE KEY-----"
_WITHOUT_TERMINAL = ("setsid", "--wait", "sh", "-c", 'exec "$@" >&2', "sh")  # up to 2.5 it prints errors to stdout


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """A private key and the certificate that belongs to it, as files in PEM format."""

    key: Path
    certificate: Path
    passphrase: Path | None = None  # a file with the key's, if it has one

    def sign(self, program: Path, target: Path) -> EfiProgram:
        """Write `program` with a signature to the new file `target`; the same bytes for the same program and key.

        Returns the signed program, its signature verified with the certificate. Raises WorkError if the key cannot be
        used or does not belong to the certificate, and OSError.
        """
        own = read_certificate(self.certificate)
        time = int(own.not_valid_before_utc.timestamp())
        # Where a passphrase is missing or wrong it asks for one, and would wait for ever: not without a terminal.
        unlock = ("-readpass", self.passphrase) if self.passphrase else ("-pass", "none")
        options = ["-h", "sha256", "-time", str(time), "-certs", self.certificate, "-key", self.key, *unlock]
        try:
            tools.run(*_WITHOUT_TERMINAL, PROGRAM, "sign", *options, "-in", program, "-out", target)
        except WorkError as error:
            label = "\n  ".join(problem.label for problem in error.problems)
            why = self._reason(label)
            message = f"{PROGRAM} could not sign with the key {self.key}{why and ': '}{why}"
            hint = "the key must belong to the certificate; if it has a passphrase, give a file with it (passphrase)"
            label = "" if why else label
            raise WorkError(Problem(reference="signing-failed", message=message, label=label, hint=hint)) from error
        signed = examined(target.name, target.read_bytes())
        if not any(one.intact and one.certificates[0] == own for one in signed.signatures):
            why = next((one.flaw for one in signed.signatures), "") or "another certificate signed it"
            message = f"the signature by {self.key} is not valid for {self.certificate}: {why}"
            raise WorkError(
                Problem(reference="signing-failed", message=message, hint="give the key of this certificate")
            )
        return signed

    def trial(self, program: Iterable[bytes]) -> list[Problem]:
        """Why `program` cannot be made or signed: found before there is work that would be lost."""
        with temporary_folder(prefix="pxe-pack-sign-") as work:
            try:
                (work / "unsigned.efi").write_bytes(b"".join(program))
                self.sign(work / "unsigned.efi", work / "signed.efi")
            except WorkError as error:
                return [*error.problems]
        return []

    def _reason(self, printed: str) -> str:
        """What OpenSSL's errors in `printed` mean (crypto/x509/x509_err.c, crypto/pem/pem_err.c); empty if unknown."""
        if "key values mismatch" in printed or "key type mismatch" in printed:
            return f"it does not belong to {self.certificate}"
        if "password" in printed or "passphrase" in printed:
            wrong = f"it is not the one in {self.passphrase}"
            return f"it has a passphrase, and {wrong if self.passphrase else 'none is given'}"
        return ""


def configured_signer(
    section: SecureBoot,
    *,
    base_dir: Path,
    key: Path | None = None,
    certificate: Path | None = None,
    passphrase: Path | None = None,
) -> tuple[Signer | None, list[Problem]]:
    """The signer that flags, else `section` of a configuration in `base_dir`, give, if any; and what it lacks."""

    def path(flag: Path | None, value: str | None) -> Path | None:
        return flag or (base_dir / value if value else None)

    key, certificate = path(key, section.key), path(certificate, section.cert)
    if key and certificate:
        return Signer(key=key, certificate=certificate, passphrase=path(passphrase, section.passphrase)), []
    return None, [incomplete()] if key or certificate else []


def given_signer(arguments: argparse.Namespace) -> Signer | None:
    """The signer that the flags of `parser.add_signing` give; None if there is none. Raises InputError for half one."""
    key, certificate = arguments.secure_boot_key, arguments.secure_boot_cert
    if not key and not certificate:
        return None
    if not key or not certificate:
        raise InputError(incomplete())
    return Signer(key=key, certificate=certificate, passphrase=arguments.secure_boot_passphrase)


def incomplete() -> Problem:
    """The problem of a key without a certificate, or the other way round."""
    message = "a signed boot needs both a key and its certificate, but only one is given"
    hint = "`pack: {secure_boot: {key: db.key, cert: db.pem}}`, or --secure-boot-key and --secure-boot-cert"
    return Problem(reference="signing-incomplete", message=message, hint=hint)


def signer_problems(signer: Signer) -> list[Problem]:
    """Why nothing can be signed: a program or a file that is missing, or no certificate."""
    found = tools.missing([PROGRAM], reason="to sign the boot program")
    for what, path in (("key", signer.key), ("passphrase", signer.passphrase)):
        if path and not path.is_file():
            message = f"the {what} {path} does not exist or is not a file"
            found.append(Problem(reference="signing-no-key", message=message, hint=f"give the file of the {what}"))
    try:
        read_certificate(signer.certificate)
    except InputError as error:
        found += error.problems
    return found


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a PEM file. Raises InputError if there is none, or if the file has a private key."""
    from cryptography import x509

    try:
        data = read_input(path, limit=_MOST + 1)
    except OSError as error:
        raise _no_certificate(f"cannot read the certificate {path}: {error.strerror}") from error
    if _PRIVATE in data:
        raise _no_certificate(f"{path} has a private key in it; the certificate must be in a file of its own")
    try:
        return x509.load_pem_x509_certificate(data[:_MOST])
    except ValueError as error:
        raise _no_certificate(f"{path} is not a certificate in PEM format") from error


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 digest of a certificate's DER form, in hexadecimal."""
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


def _no_certificate(message: str) -> InputError:
    hint = "give a file with `-----BEGIN CERTIFICATE-----`; for DER: openssl x509 -inform DER -in FILE -out cert.pem"
    return InputError(Problem(reference="signing-no-certificate", message=message, hint=hint))
