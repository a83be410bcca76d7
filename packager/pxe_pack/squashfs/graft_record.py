"""A graft's record: what the image was before, so that a graft can be taken out, or replaced by another.

A graft leaves the former image's bytes where they are, its tables included, and writes 96 of them anew: the superblock.
The old one is kept, with the former size, in the 152 bytes before the new inode table. No reader of squashfs looks
there: it is room between data blocks. Any other program that rewrites the image moves its tables, and with that the
record is no longer one.
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
    """The record that gives `image` back."""
    fields = _LAYOUT.pack(_MAGIC, image.source.size, image.superblock.pack())
    return fields + hashlib.sha256(fields).digest()


def original(image: Image) -> Image | None:
    """The image that was grafted to become `image`, None when there was none.

    It reads the same open file, and is closed with `image`. The first 96 bytes of its window are not its superblock's.
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
