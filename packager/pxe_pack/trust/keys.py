"""Public keys of minisign, which a pack puts into the image: nodes verify a configuration by URL with them.

Source: https://jedisct1.github.io/minisign/, "Public key format" and "Secret key format": both are a comment, and
base64 that begins with `Ed`, of 42 bytes and of 158. What a public key is, pxe_fetch.contract.minisign decides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract import minisign
from pxe_fetch.contract.problem import Problem, printable
from pxe_pack.input_file import read_input

SUFFIX = ".pub"
_PUBLIC_SIZE = 42  # bytes, of a public key with its id
_SECRET = (b"PRIVATE KEY", b"encrypted secret key")  # in a PEM file's first line, or in minisign's comment


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustKey:
    """A public key: the name of its file in the image, the file's content, and its id as minisign prints it."""

    name: str
    content: bytes
    id: str  # 16 hexadecimal digits
    key: bytes

    def document(self) -> dict[str, object]:
        """The key as JSON values."""
        return {"file": self.name, "key_id": self.id}

    def __str__(self) -> str:
        return f"{self.name} (minisign key {self.id})"


class KeyFileError(ValueError):
    """A file is no public key; the message follows its name."""

    def __init__(self, message: str, *, reference: str) -> None:
        super().__init__(message)
        self.reference = reference


def read_keys(files: Sequence[Path]) -> tuple[tuple[TrustKey, ...], list[Problem]]:
    """The public keys in `files`, and what is wrong with the files. No problem shows anything of their content."""
    found: dict[str, TrustKey] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            content = _content(file).replace(b"\r\n", b"\n")  # minisign reads both; nodes have the one spelling
            key = parse(content, name=file.name if file.name.endswith(SUFFIX) else f"{file.name}{SUFFIX}")
            _refuse_repeated(key, found)
        except KeyFileError as error:
            problems.append(_problem(file, error))
        else:
            found[key.name] = key
    return tuple(found.values()), problems


def parse(content: bytes, *, name: str) -> TrustKey:
    """The public key in the file content `content`. Raises KeyFileError."""
    if len(content) > minisign.MAX_SIZE:
        message = f"has more than {minisign.MAX_SIZE:,} bytes, so it is not a minisign public key"
        raise KeyFileError(message, reference="trust-key-invalid")
    if _is_secret(content):
        raise KeyFileError("is a SECRET key, which must never get into an image", reference="trust-key-secret")
    try:
        found = minisign.public_key(content)
    except minisign.MinisignError as error:
        raise KeyFileError(str(error), reference="trust-key-invalid") from None
    return TrustKey(name=name, content=content, id=found.id, key=found.key)


def _is_secret(content: bytes) -> bool:
    """Whether this is a private key: minisign's, with its comment or without, or one in PEM."""
    return any(word in content for word in _SECRET) or is_minisign_secret(content)


def is_minisign_secret(content: bytes) -> bool:
    """Whether a secret key of minisign is in the file content `content`, with a password or without."""
    for line in content.splitlines():
        with suppress(binascii.Error):
            data = base64.b64decode(line.strip(), validate=True)
            if data.startswith(b"Ed") and len(data) > _PUBLIC_SIZE:
                return True
    return False


def _content(file: Path) -> bytes:
    try:
        return read_input(file, limit=minisign.MAX_SIZE + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}", reference="trust-key-unreadable") from None


def _refuse_repeated(key: TrustKey, found: dict[str, TrustKey]) -> None:
    if key.name in found:
        raise KeyFileError(f"would be {key.name} in the image, as another key is", reference="trust-key-repeated")
    if same := next((one.name for one in found.values() if one.key == key.key), None):
        raise KeyFileError(f"has the same key as {same}", reference="trust-key-repeated")


_HINTS = {
    "trust-key-secret": "give the public key, which `minisign -G` wrote to a file ending in .pub; keep this one secret",
    "trust-key-unreadable": "give the public key's file with `pack: {trust: [site.pub]}` or --trust site.pub",
    "trust-key-repeated": "give each key once, in files of different names",
    "trust-key-invalid": "`minisign -G -p site.pub -s site.key` makes a pair of keys; give site.pub",
}


def _problem(file: Path, error: KeyFileError) -> Problem:
    message = f"{printable(str(file))} {error}"
    return Problem(reference=error.reference, message=message, hint=_HINTS[error.reference])


def lines(keys: Sequence[TrustKey]) -> Iterator[str]:
    """The keys as lines of a plan or a report."""
    for key in keys:
        yield f"trust     {key}"
