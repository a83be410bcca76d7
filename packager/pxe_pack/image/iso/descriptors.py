"""The volume descriptors of an ISO 9660 image: where its directory trees begin.

Source: ECMA-119, 8 (descriptors) and 9.1 (the root's record in them); the Joliet Specification (escape sequences).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

SECTOR = 2048

DESCRIPTORS_AT = 16 * SECTOR
IDENTIFIER = b"CD001"
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")  # escape sequences of its character sets
_MOST = 64  # descriptors; more are not looked at


def primary(file: BinaryIO) -> bytes | None:
    """The primary volume descriptor, if it has sectors of 2,048 bytes."""
    return next(
        (one for one in _descriptors(file) if one[0] == _PRIMARY and struct.unpack_from("<H", one, 128)[0] == SECTOR),
        None,
    )


def joliet(file: BinaryIO) -> bytes | None:
    """The descriptor of the tree with Joliet's names; as in Linux, the last one if there are several."""
    found = None
    for one in _descriptors(file):
        if one[0] == _SUPPLEMENTARY and one[88:91] in _JOLIET:
            found = one
    return found


def root_record(descriptor: bytes) -> bytes:
    """The directory record of a tree's root."""
    return descriptor[156:190]


def _descriptors(file: BinaryIO) -> Iterator[bytes]:
    """The descriptors, up to the one that ends them."""
    for index in range(_MOST):
        descriptor = os.pread(file.fileno(), SECTOR, DESCRIPTORS_AT + index * SECTOR)
        if len(descriptor) < SECTOR or descriptor[1:6] != IDENTIFIER or descriptor[0] == _TERMINATOR:
            return
        yield descriptor
