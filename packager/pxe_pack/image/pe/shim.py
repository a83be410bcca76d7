"""What is built into a shim: the certificates and digests that it trusts or refuses, and its SBAT level.

Sources: shim, cert.S (the table in `.vendor_cert`; the trusted part is one certificate, or a signature list),
sbat_var.S (the levels in `.sbatlevel`), verify.c; UEFI 2.10, 32.4.1 (EFI_SIGNATURE_LIST).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from pxe_pack.image.limits import Limit
from pxe_pack.image.pe.certificates import load
from pxe_pack.image.pe.program import PeProgram
from pxe_pack.image.pe.sbat import Level, parse_level

if TYPE_CHECKING:
    from cryptography import x509

_VENDOR, _LEVEL = ".vendor_cert", ".sbatlevel"
_TABLE = struct.Struct("<IIII")  # sizes of the trusted and the refused part, then their offsets
_LEVELS = struct.Struct("<III")  # format version; offsets of the automatic and the latest level, from the second field
_LEVELS_FROM = 4
_LIST = struct.Struct("<16sIII")  # type; sizes of the list, of its header, of each entry
_OWNER = 16  # bytes before each entry's data
_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
_SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Certificates, and SHA-256 Authenticode digests of programs."""

    certificates: tuple[x509.Certificate, ...] = ()
    digests: frozenset[bytes] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shim:
    """What a shim has built in."""

    trusted: Keys = field(default=Keys(), repr=False)
    refused: Keys = field(default=Keys(), repr=False)
    level: Level | None = None  # the SBAT level that it sets on nodes with Secure Boot; None before shim 15.7


def read_shim(data: bytes, program: PeProgram) -> Shim | None:
    """The shim in `program`, whose bytes are `data`; None if it is not a shim."""
    section = program.section(data, _VENDOR)[: Limit.VENDOR_SIZE.most]
    if len(section) < _TABLE.size:
        return None
    trusted_size, refused_size, trusted_at, refused_at = _TABLE.unpack_from(section)
    own = section[trusted_at : trusted_at + trusted_size]
    certificate = load(own)
    return Shim(
        trusted=Keys(certificates=(certificate,)) if certificate else _keys(own),
        refused=_keys(section[refused_at : refused_at + refused_size]),
        level=_automatic(program.section(data, _LEVEL)),
    )


def _automatic(section: bytes) -> Level | None:
    """The level that shim applies by default (sbat.c, POLICY_AUTOMATIC)."""
    if len(section) < _LEVELS.size:
        return None
    _, at, _ = _LEVELS.unpack_from(section)
    return parse_level(section[_LEVELS_FROM + at :])


def _keys(lists: bytes) -> Keys:
    entries = list(_entries(lists))
    return Keys(
        certificates=tuple(made for kind, content in entries if kind == _X509 and (made := load(content))),
        digests=frozenset(content for kind, content in entries if kind == _SHA256),
    )


def _entries(lists: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of each entry in signature lists; those before the damage if they are damaged."""
    at = 0
    while at + _LIST.size <= len(lists):
        kind, size, header, each = _LIST.unpack_from(lists, at)
        if size < _LIST.size or each <= _OWNER or at + size > len(lists):
            return
        for entry in range(at + _LIST.size + header, at + size - each + 1, each):
            yield kind, lists[entry + _OWNER : entry + each]
        at += size
