"""A certification authority made on the fly by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
[ca]
default_ca = site
[site]
dir = {folder}
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
"""
PAST, PRESENT, FUTURE = (
    ("20000101000000Z", "20010101000000Z"),
    ("20200101000000Z", "20991231000000Z"),
    (
        "20980101000000Z",
        "20991231000000Z",
    ),
)  # not before, not after


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A CA whose files live in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._config = folder / "ca.cnf"
        self._config.write_text(_CONFIG.format(folder=folder))
        (folder / "index.txt").touch()
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=site CA", "-days", "2", "-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, *, validity: tuple[str, str] = PRESENT, alternative: str = "") -> Issued:
        """A certificate for `name`; `alternative` as in subjectAltName."""
        stem = f"{name}-{validity[0]}"
        key, request, certificate = (self._folder / f"{stem}.{suffix}" for suffix in ("key", "csr", "pem"))
        extension = ("-addext", f"subjectAltName={alternative}") if alternative else ()
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *extension),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        _openssl(
            *("ca", "-batch", "-notext", "-config", str(self._config), "-cert", str(self.certificate)),
            *("-keyfile", str(self._key), "-in", str(request), "-out", str(certificate)),
            *("-startdate", validity[0], "-enddate", validity[1]),
        )
        return Issued(certificate, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
