"""Grow the last file of an ISO: update its size in the directory records and in the volume descriptors.

xorriso writes the whole ISO except the root filesystem, for which it gets a placeholder that it puts last. Only two
kinds of numbers then need correcting. Source: ECMA-119, 8.4.8 (volume space size) and 9.1.4 (data length); both are
stored in both byte orders (7.3.3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import contiguous, open_iso
from pxe_pack.tools import WorkError

_BOTH = struct.Struct("<I")
_BOTH_BIG = struct.Struct(">I")
_VOLUMES = range(16, 64)  # sectors searched for volume descriptors
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_VOLUME_SIZE_AT, _ROOT_AT = 80, 156  # in a descriptor
_EXTENT_AT, _SIZE_AT, _FLAGS_AT, _NAME_LENGTH_AT = 2, 10, 25, 32  # in a record
_DIRECTORY = 0x02


def grow_last_file(path: Path, *, name: str, size: int) -> int:
    """Set the size of the file `name` in the image `path` to `size` bytes, and return the offset of its content.

    The content must be the last in the image; the caller writes it. The volume's padding moves behind the new end. A
    file that already has that size is left unchanged. Raises WorkError if the content is not the last, and InputError
    if the image cannot be read.
    """
    with open_iso(path) as image:
        entry = image.find(name)
        span = contiguous(entry) if entry else None
        volume, total = image.volume_size, image.size
        others = [one for other in image.entries.values() if other is not entry for one in other.spans if one.size]
    if span is None or any(other.offset > span.offset for other in others):
        raise WorkError(Problem(reference="iso-unexpected", message=f"{name} is not the last file that xorriso wrote"))
    if span.size == size:
        return span.offset
    more = _sectors(size) - _sectors(span.size)
    with path.open("r+b", buffering=0) as file:
        descriptor = file.fileno()
        for sector in _volumes(descriptor):
            at = sector * SECTOR
            root = os.pread(descriptor, _NAME_LENGTH_AT + 2, at + _ROOT_AT)
            for record in _records(descriptor, root, seen=set()):
                if _number(descriptor, record + _EXTENT_AT) == span.offset // SECTOR:
                    _put(descriptor, record + _SIZE_AT, size)
            _put(descriptor, at + _VOLUME_SIZE_AT, volume // SECTOR + more)
        file.truncate(total + more * SECTOR)
    return span.offset


def _sectors(size: int) -> int:
    return -(-size // SECTOR)


def _volumes(descriptor: int) -> Iterator[int]:
    """The sectors of the descriptors with a directory tree: the primary one, and Joliet's."""
    for sector in _VOLUMES:
        kind = os.pread(descriptor, 1, sector * SECTOR)
        if not kind or kind[0] == _TERMINATOR:
            return
        if kind[0] in (_PRIMARY, _SUPPLEMENTARY):
            yield sector


def _records(descriptor: int, directory: bytes, *, seen: set[int]) -> Iterator[int]:
    """The offsets of the records of all files below `directory`."""
    sector, size = struct.unpack_from("<I4xI", directory, _EXTENT_AT)
    if sector in seen:
        return
    seen.add(sector)
    data = os.pread(descriptor, size, sector * SECTOR)
    at = 0
    while at < len(data):
        length = data[at]
        if not length:  # no record crosses a sector
            at = (at // SECTOR + 1) * SECTOR
            continue
        record = data[at : at + length]
        if not record[_FLAGS_AT] & _DIRECTORY:
            yield sector * SECTOR + at
        elif record[_NAME_LENGTH_AT + 1 :][: record[_NAME_LENGTH_AT]] not in (b"\0", b"\1"):
            yield from _records(descriptor, record, seen=seen)
        at += length


def _number(descriptor: int, at: int) -> int:
    return int(_BOTH.unpack(os.pread(descriptor, 4, at))[0])


def _put(descriptor: int, at: int, number: int) -> None:
    os.pwrite(descriptor, _BOTH.pack(number) + _BOTH_BIG.pack(number), at)
