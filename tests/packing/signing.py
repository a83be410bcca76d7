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

    def has_signed(self, program: Path) -> bool:
        """Whether sbverify takes the program's signature."""
        command: list[str | Path] = ["sbverify", "--cert", self.certificate, program]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def section(program: Path, name: str) -> bytes:
    """The content of a program's section, taken out by objcopy: not by what is under test."""
    target = program.with_name(f"section{name}")
    command = ["objcopy", "-O", "binary", "--dump-section", f"{name}={target}", str(program), "/dev/null"]
    subprocess.run(command, check=True, capture_output=True)
    content = target.read_bytes()
    target.unlink()
    return content


def authority(where: Path, name: str, *, days: int = 365) -> Authority:
    """A new one, called `name`, in the folder `where`; its certificate is valid for so many days."""
    key, certificate = where / "key.pem", where / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        str(days),
        "-subj",
        f"/CN={name}/O=Tests",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return Authority(key=key, certificate=certificate)
