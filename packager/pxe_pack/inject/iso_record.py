"""The record at the end of a packed ISO, from which the ISO that was packed is restored byte for byte.

A packed ISO has nearly all bytes of its original. xorriso writes anew the volume descriptors and, where it rewrites the
ISO, directories and the boot catalog. The record lists the original's bytes in order, as pieces: found at an offset in
the packed ISO, zeros, or kept in the record. It lies behind the volume, where no reader of ISO 9660 looks:

    pieces and kept bytes (zlib) │ zeros up to a full sector │ trailer: magic, sizes, SHA-256

The digest covers the system area and the volume descriptors too (ECMA-119 6.2.1, 8.4). Who changes the ISO later writes
new ones, and the record, which no longer says where things are, is void. Only what implantisomd5(1) writes, the
application use field of the primary descriptor, is left out. A record is input from outside: its size is bounded,
and no piece lies outside the ISO.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pxe_pack.hashing import Span, copy_piece, write_all
from pxe_pack.image.iso.descriptors import SECTOR

# libisofs, iso_write_opts_set_overwrite_buf(): growing an image replaces its first 64 KiB, and appends all else
HEAD_SIZE: Final = 64 << 10
LIMIT: Final = 32 << 20  # bytes of pieces and kept bytes: an ISO that needs more gets no record
_MAGIC: Final = b"pxe-pack iso v1\n"
_FIELDS: Final = struct.Struct("<16sQQQ")  # magic, size of the original, offset and size of the body
_TRAILER_SIZE: Final = _FIELDS.size + hashlib.sha256().digest_size
_COUNT: Final = struct.Struct("<Q")
_PIECE: Final = struct.Struct("<cQQ")  # kind, size, offset
_FOUND, _ZEROS, _KEPT = b"F", b"Z", b"K"
_DESCRIPTORS_AT, _TERMINATOR = 16 * SECTOR, 255  # ECMA-119 6.2.1 and 8.3
_APPLICATION_USE: Final = Span(offset=_DESCRIPTORS_AT + 883, size=512)  # ECMA-119 8.4.32


class Pieces:
    """The original's bytes in order, while a record is made."""

    def __init__(self) -> None:
        self._table: list[tuple[bytes, int, int]] = []
        self._kept = bytearray()

    def add_found(self, size: int, *, at: int) -> None:
        """The next `size` bytes are at the offset `at` of the packed ISO."""
        self._add(_FOUND, size, at)

    def add_bytes(self, data: bytes) -> None:
        """The next bytes are `data`."""
        if not data.strip(b"\0"):
            self._add(_ZEROS, len(data), 0)
        else:
            self._add(_KEPT, len(data), len(self._kept))
            self._kept += data

    def _add(self, kind: bytes, size: int, at: int) -> None:
        if not size:
            return
        last, before, start = self._table[-1] if self._table else (b"", 0, 0)
        if kind == last and (kind == _ZEROS or start + before == at):
            self._table[-1] = (kind, before + size, start)
        else:
            self._table.append((kind, size, at))

    @property
    def size(self) -> int:
        """Of the original, in bytes."""
        return sum(size for _, size, _ in self._table)

    @property
    def is_too_large(self) -> bool:
        """Whether a record of them would be too large."""
        return _COUNT.size + len(self._table) * _PIECE.size + len(self._kept) > LIMIT

    def body(self) -> bytes:
        """The body of the record, not compressed."""
        return _COUNT.pack(len(self._table)) + b"".join(_PIECE.pack(*piece) for piece in self._table) + self._kept


def append_record(path: Path, pieces: Pieces) -> None:
    """Append the record of `pieces` to the packed ISO `path`. The content of files may still be missing there.

    An ISO whose record would be too large gets none: its payload can be removed, but not byte for byte.
    """
    if pieces.is_too_large:
        return
    with path.open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        at = -(-end // SECTOR) * SECTOR
        packed = zlib.compress(pieces.body())
        padding = bytes(-(len(packed) + _TRAILER_SIZE) % SECTOR)
        fields = _FIELDS.pack(_MAGIC, pieces.size, at, len(packed))
        digest = _digest(_head(file), fields, packed)
        write_all(file, bytes(at - end) + packed + padding + fields + digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoRecord:
    """A valid record."""

    size: int  # of the original ISO, in bytes
    body: bytes

    def restore(self, packed: BinaryIO, target: Path) -> None:
        """Write the original of the ISO `packed` to the new file `target`. Raises OSError."""
        table, kept = _split(self.body)
        with target.open("xb", buffering=0) as file:
            for kind, size, at in _PIECE.iter_unpack(table):
                if kind == _FOUND:
                    copy_piece(packed, file, span=Span(offset=at, size=size))
                elif kind == _KEPT:
                    write_all(file, bytes(kept[at : at + size]))
                else:
                    file.seek(size, os.SEEK_CUR)
            file.truncate(self.size)


def read_record(file: BinaryIO) -> IsoRecord | None:
    """The record at the end of an ISO; None if there is none, or if it is damaged or void. Raises OSError."""
    end = os.fstat(file.fileno()).st_size
    trailer = os.pread(file.fileno(), _TRAILER_SIZE, max(end - _TRAILER_SIZE, 0))
    if len(trailer) < _TRAILER_SIZE or not trailer.startswith(_MAGIC):
        return None
    _, size, at, length = _FIELDS.unpack_from(trailer)
    if length > LIMIT or at + length > end or size > end + LIMIT:
        return None
    packed = os.pread(file.fileno(), length, at)
    if _digest(_head(file), trailer[: _FIELDS.size], packed) != trailer[_FIELDS.size :]:
        return None
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(packed, LIMIT)
    except zlib.error:
        return None
    return IsoRecord(size=size, body=body) if stream.eof and _is_whole(body, size=size, end=end) else None


def _is_whole(body: bytes, *, size: int, end: int) -> bool:
    """Whether the pieces make up `size` bytes, none of which is outside the record or the packed ISO."""
    if len(body) < _COUNT.size or _COUNT.unpack_from(body)[0] > (len(body) - _COUNT.size) // _PIECE.size:
        return False
    table, kept = _split(body)
    limits = {_FOUND: end, _KEPT: len(kept), _ZEROS: size}
    total = 0
    for kind, length, at in _PIECE.iter_unpack(table):
        if at + length > limits.get(kind, -1):
            return False
        total += length
    return total == size


def _split(body: bytes) -> tuple[memoryview, memoryview]:
    """The table of pieces, and the kept bytes."""
    (count,) = _COUNT.unpack_from(body)
    middle = _COUNT.size + count * _PIECE.size
    return memoryview(body)[_COUNT.size : middle], memoryview(body)[middle:]


def _head(file: BinaryIO) -> bytes:
    """The system area and the volume descriptors of an ISO, without what implantisomd5 writes."""
    head = os.pread(file.fileno(), HEAD_SIZE, 0)
    ends = (at + SECTOR for at in range(_DESCRIPTORS_AT, len(head), SECTOR) if head[at] == _TERMINATOR)
    after = _APPLICATION_USE.offset + _APPLICATION_USE.size
    return head[: _APPLICATION_USE.offset] + bytes(_APPLICATION_USE.size) + head[after : next(ends, len(head))]


def _digest(head: bytes, fields: bytes, packed: bytes) -> bytes:
    return hashlib.sha256(head + fields + packed).digest()
