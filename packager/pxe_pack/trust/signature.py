"""Signatures of configurations: made and verified by the program minisign, never by code of ours.

Source: minisign(1). What nodes take for a signature, pxe_fetch.contract.minisign decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pxe_fetch.contract import minisign
from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.input_file import read_input
from pxe_pack.tools import InputError, WorkError
from pxe_pack.trust.keys import TrustKey, is_minisign_secret

PROGRAM = "minisign"


class SignatureError(ValueError):
    """A signature that nodes would refuse; the message follows the name of its file."""


def signature_file(file: Path) -> Path:
    """Where minisign puts the signature of `file`."""
    return file.with_name(f"{file.name}{minisign.SUFFIX}")


def sign(content: bytes, *, name: str, secret: Path, work: Path) -> bytes:
    """The signature of `content` by the secret key in the file `secret`, which minisign may ask a password for.

    `name` is the file's name, which is in the trusted comment; `work` is a folder for temporary files. Raises
    InputError if there is no such key or no minisign, WorkError if it fails.
    """
    if problems := tools.missing([PROGRAM], reason="to sign the configuration"):
        raise InputError(*problems)
    if reason := _key_reason(secret):
        message, hint = f"{secret} {reason}", "give the secret key's file, which `minisign -G -s site.key` writes"
        raise InputError(Problem(reference="sign-key-unreadable", message=message, hint=hint))
    (work / "unsigned").mkdir()
    file = work / "unsigned" / name
    file.write_bytes(content)
    tools.run_in_terminal(PROGRAM, "-S", "-s", secret.absolute(), "-x", signature_file(file), "-m", file)
    return signature_file(file).read_bytes()


def _key_reason(secret: Path) -> str | None:
    """Why minisign cannot sign with the file `secret`, as the end of a sentence; None if it may."""
    if not secret.is_file():
        return "is not a file"
    try:
        content = read_input(secret, limit=minisign.MAX_SIZE)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if is_minisign_secret(content) else "is not a minisign secret key"


def signer_of(signature: bytes, content: bytes, *, keys: Sequence[TrustKey], work: Path) -> TrustKey:
    """The one of `keys` that has made the `signature` of `content`.

    Raises SignatureError if none has, or if nodes refuse such a signature; InputError if there is no minisign.
    """
    if len(signature) > minisign.MAX_SIZE:
        raise SignatureError("is not a minisign signature")
    try:
        made_by = minisign.signature(signature).key_id
    except minisign.MinisignError as error:
        raise SignatureError(str(error)) from None
    named = [one for one in keys if one.id == made_by]  # an id is 8 bytes that anybody can choose
    if not named:
        trusted = ", ".join(map(str, keys)) or "none"
        raise SignatureError(f"is by the key {made_by}, which the image does not trust; it trusts {trusted}")
    if problems := tools.missing([PROGRAM], reason="to verify the configuration's signature"):
        raise InputError(*problems)
    file, signed = work / "content", work / "signature"
    public = work / "key.pub"
    file.write_bytes(content)
    signed.write_bytes(signature)
    for key in named:
        public.write_bytes(key.content)
        try:
            tools.run(PROGRAM, "-V", "-q", "-H", "-p", public, "-x", signed, "-m", file)
        except WorkError:
            continue
        return key
    raise SignatureError(f"does not fit: the file has changed since {named[0].name}'s owner signed it")
