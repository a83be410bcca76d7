"""Keys and signatures by the real minisign; and files in its format that it would not write."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Key:
    """A key pair in `folder`, without a password."""

    folder: Path

    @property
    def public(self) -> bytes:
        """The file of the public key."""
        return (self.folder / "key.pub").read_bytes()

    @property
    def secret(self) -> bytes:
        """The file of the secret key."""
        return (self.folder / "key").read_bytes()

    @property
    def id(self) -> str:
        """As minisign prints it."""
        return self.public.splitlines()[0].split()[-1].decode()

    def sign(self, text: str | bytes, *flags: str) -> bytes:
        """The file of a signature of `text`."""
        file = self.folder / "signed"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        _minisign("-S", "-s", self.folder / "key", "-m", file, *flags)
        return file.with_name("signed.minisig").read_bytes()


def new_key(folder: Path) -> Key:
    """A key pair, made in the new `folder`."""
    folder.mkdir(parents=True)
    _minisign("-G", "-W", "-p", folder / "key.pub", "-s", folder / "key")
    return Key(folder)


def with_id_of(content: bytes, other: bytes) -> bytes:
    """The file `content`, a key or a signature, with the id of the key in `other`."""
    lines, others = content.split(b"\n"), other.split(b"\n")
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(raw[:2] + base64.b64decode(others[1])[2:10] + raw[10:])
    return b"\n".join(lines)


def with_line(content: bytes, number: int, line: bytes) -> bytes:
    """The file `content` with another line in the place of that with this number, from 0."""
    lines = content.split(b"\n")
    lines[number] = line
    return b"\n".join(lines)


def _minisign(*arguments: str | Path) -> None:
    subprocess.run(["minisign", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)
