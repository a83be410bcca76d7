"""Keys of minisign, made by minisign itself, without a password."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A pair of key files."""

    public: Path
    secret: Path

    @property
    def id(self) -> str:
        """The key's id, which minisign has written into the comment: older ones without the zeros before it."""
        return self.public.read_text().splitlines()[0].rpartition(" ")[2].zfill(16)

    @property
    def key(self) -> str:
        """The public key in base64."""
        return self.public.read_text().splitlines()[1]


def key_pair(folder: Path, name: str = "site") -> KeyPair:
    """A new pair: NAME.pub and NAME.key."""
    pair = KeyPair(public=folder / f"{name}.pub", secret=folder / f"{name}.key")
    subprocess.run(["minisign", "-G", "-W", "-p", pair.public, "-s", pair.secret], check=True, capture_output=True)
    return pair


def sign(file: Path, pair: KeyPair, *flags: str) -> Path:
    """Sign a file by minisign; the signature beside it."""
    subprocess.run(["minisign", "-S", "-s", pair.secret, "-m", file, *flags], check=True, capture_output=True)
    return file.with_name(f"{file.name}.minisig")
