"""Programs signed for Secure Boot with keys made on the spot, by sbsign: not by what is under test."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A key with its certificate, which signs programs itself."""

    key: Path
    certificate: Path

    def sign(self, program: bytes) -> bytes:
        """The program with a signature."""
        unsigned = self.key.with_name("unsigned.efi")
        unsigned.write_bytes(program)
        signed = self.key.with_name("signed.efi")
        command = [
            "sbsign",
            "--key",
            str(self.key),
            "--cert",
            str(self.certificate),
            "--output",
            str(signed),
            str(unsigned),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return signed.read_bytes()


def authority(where: Path, name: str) -> Authority:
    """A new one, called `name`, in the folder `where`."""
    key, certificate = where / "key.pem", where / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "365",
        "-subj",
        f"/CN={name}/O=Tests",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return Authority(key=key, certificate=certificate)
