"""Who may sign this node's configuration, and whether one of them has: minisign's signatures, checked by libsodium."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pxe_fetch import regular_file
from pxe_fetch.contract import minisign
from pxe_fetch.contract.minisign import MinisignError, PublicKey
from pxe_fetch.errors import PolicyError


def read_keys(folder: Path) -> dict[str, PublicKey]:
    """The public keys in the files NAME.pub in `folder`, by these names; none if it is missing.

    Raises PolicyError if one is damaged: without it, signing might be off.
    """
    found: dict[str, PublicKey] = {}
    file = folder
    try:
        for file in sorted(folder.iterdir()):
            if file.suffix == ".pub":
                found[file.name] = minisign.public_key(regular_file.read(file, limit=minisign.MAX_SIZE))
    except (OSError, MinisignError) as error:
        if file != folder or not isinstance(error, FileNotFoundError):
            reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error
            raise PolicyError(f"{file} {reason}; pack the image again with its public keys") from None
    return found


def signer(body: bytes, content: bytes, *, keys: Mapping[str, PublicKey]) -> str:
    """The name of the key by which the signature in the file `content` is one of `body`. Raises MinisignError."""
    given = minisign.signature(content)
    known = [name for name, key in keys.items() if key.id == given.key_id]
    if not known:
        trusted = ", ".join(f"{key.id} ({name})" for name, key in keys.items())
        raise MinisignError(f"is by the key {given.key_id}, and this node trusts {trusted}")
    digest = hashlib.blake2b(body).digest()
    name = next((name for name in known if _is_by(keys[name], given.signature, digest)), None)
    if name is None:
        raise MinisignError("is not a signature of these bytes by that key")
    if not _is_by(keys[name], given.comment_signature, given.signature + given.comment):
        raise MinisignError("has another trusted comment than the one that was signed")
    return name


def _is_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the Ed25519 `signature` of `message` is by `key` (RFC 8032).

    PyNaCl's module of C, which is libsodium itself, takes 1 ms to import; its modules of Python, which call the same
    function, 17 ms. docs/decisions/0040 has what that relies on.
    """
    from nacl._sodium import ffi, lib

    signed = signature + message
    opened, length = ffi.new("unsigned char[]", len(signed)), ffi.new("unsigned long long *")
    return bool(lib.sodium_init() >= 0 and lib.crypto_sign_open(opened, length, signed, len(signed), key.key) == 0)
