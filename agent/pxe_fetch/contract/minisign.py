"""The files of minisign, and their form alone: public keys, and signatures by them (https://jedisct1.github.io/minisign/).

Of its two kinds of signature only that of a file's BLAKE2b-512 (`ED`) is taken; the legacy one needs an older minisign,
or its flag -l. A file has exactly the lines that minisign writes, so that of each there is one spelling.
"""

from __future__ import annotations

import binascii
from typing import NamedTuple

MAX_SIZE = 4096  # bytes of a file; comments may have 1,024 and 8,192 characters, but no more are of use
SUFFIX = ".minisig"  # of the path of a signed file, for that of its signature
_COMMENT = b"untrusted comment: "
_HEAD = 2 + 8  # bytes: the algorithm, the id of the key


class MinisignError(ValueError):
    """A file that is none of minisign's, or does not verify. The message follows the file's name: `is …`."""


class PublicKey(NamedTuple):
    """A public key of Ed25519 (RFC 8032), and the random number by which signatures refer to it."""

    id: str  # 16 hexadecimal digits, as minisign prints them
    key: bytes  # 32


class Signature(NamedTuple):
    """A signature of a file's BLAKE2b-512, and one of that signature and a comment."""

    key_id: str
    signature: bytes  # 64
    comment: bytes
    comment_signature: bytes  # 64; of `signature` and `comment`


def signature_url(url: str) -> str:
    """Where the signature of the file at `url` is: the suffix ends the path, before a query; a fragment is not sent."""
    path, mark, query = url.partition("#")[0].partition("?")
    return f"{path}{SUFFIX}{mark}{query}"


def public_key(content: bytes) -> PublicKey:
    """The key in the file `content`. Raises MinisignError."""
    what = "is not a minisign public key"
    _, line = _lines(content, (_COMMENT, b""), what=what)
    raw = _decoded(line, length=_HEAD + 32, what=what)
    if raw[:2] != b"Ed":
        raise MinisignError(what)
    return PublicKey(_id(raw), raw[_HEAD:])


def signature(content: bytes) -> Signature:
    """The signature in the file `content`. Raises MinisignError."""
    what = "is not a minisign signature"
    _, first, comment, second = _lines(content, (_COMMENT, b"", b"trusted comment: ", b""), what=what)
    raw = _decoded(first, length=_HEAD + 64, what=what)
    if raw[:2] != b"ED":
        legacy = "is in the legacy format: sign the file again, without minisign's flag -l"
        raise MinisignError(legacy if raw[:2] == b"Ed" else what)
    return Signature(_id(raw), raw[_HEAD:], comment, _decoded(second, length=64, what=what))


def _lines(content: bytes, prefixes: tuple[bytes, ...], *, what: str) -> list[bytes]:
    """The lines of `content`, each of which begins with one of `prefixes`, and without it."""
    lines = content.removesuffix(b"\n").split(b"\n")
    if len(lines) != len(prefixes) or not all(map(bytes.startswith, lines, prefixes)):
        raise MinisignError(what)
    return [*map(bytes.removeprefix, lines, prefixes)]


def _decoded(line: bytes, *, length: int, what: str) -> bytes:
    """The `length` bytes that `line` has in base64, in its one canonical spelling (RFC 4648, section 3.5)."""
    try:
        raw = binascii.a2b_base64(line)
    except ValueError:
        raw = b""
    if len(raw) != length or binascii.b2a_base64(raw, newline=False) != line:
        raise MinisignError(what)
    return raw


def _id(raw: bytes) -> str:
    return f"{int.from_bytes(raw[2:_HEAD], 'little'):016X}"
