"""The record of a graft: the original superblock and size, so that the graft can be removed or replaced.

A graft keeps the original image's bytes in place, including its tables, and only overwrites the 96 bytes of the
superblock. The original superblock and size are saved in the 152 bytes before the new inode table. No squashfs reader
looks there, since it is unused space after the data blocks. If another program rewrites the image, it moves the tables,
and the record is no longer found.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from pxe_pack.squashfs.file_slice import FileSlice
from pxe_pack.squashfs.image import Image
from pxe_pack.squashfs.superblock import SIZE as SUPERBLOCK_SIZE
from pxe_pack.squashfs.superblock import Superblock

_MAGIC: Final = b"pxe-pack graft 1"
_LAYOUT: Final = struct.Struct("<16sQ96s")
SIZE: Final = _LAYOUT.size + hashlib.sha256().digest_size


def pack(image: Image) -> bytes:
    """The record from which `original` restores `image`."""
    fields = _LAYOUT.pack(_MAGIC, image.source.size, image.superblock.pack())
    return fields + hashlib.sha256(fields).digest()


def original(image: Image) -> Image | None:
    """The image that `image` was before its graft; None if it has no graft.

    It shares the open file and is closed with `image`. The first 96 bytes of its source are not its own superblock.
    """
    position = image.superblock.inode_table - SIZE
    if position < SUPERBLOCK_SIZE:
        return None
    raw = image.source.read(position, SIZE)
    magic, size, superblock = _LAYOUT.unpack_from(raw)
    if magic != _MAGIC or raw[_LAYOUT.size :] != hashlib.sha256(raw[: _LAYOUT.size]).digest() or size > position:
        return None
    source = FileSlice(image.source.descriptor, offset=image.source.offset, size=size)
    return Image(source, Superblock.parse(superblock, available=size))
