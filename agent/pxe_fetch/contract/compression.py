"""The compressions that a node can undo, each recognised by its magic number, and what it takes to undo them."""

from __future__ import annotations

# RFC 1952; the .xz file format 1.1.0; bzip2(1); RFC 8878, with its sixteen kinds of skippable frames.
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes((byte,)) + b"\x2a\x4d\x18", "zstd") for byte in range(0x50, 0x60)),
)
LONGEST_MAGIC = 6  # bytes
HEAD = 64  # bytes of a stream that tell what it takes to decompress it
ZSTD_WINDOW = 128 * 1024 * 1024  # bytes, the most that libzstd takes unless told otherwise


def kind_of(head: bytes) -> str | None:
    """The compression of bytes that begin with `head`; None if it is not a known one."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def xz_dictionary(head: bytes) -> int:
    """The bytes of the dictionary of the first block (.xz file format 1.1.0, 3.1 and 5.3.1); 0 if that is unknown."""
    head = head.ljust(HEAD, b"\0")
    numbers = iter(head[14:])  # after the stream header, and the size and flags of the block header
    sizes = (head[13] & 0xC0).bit_count()  # those of the block, compressed and not
    for byte in numbers:
        if not sizes:
            lzma2, _, bits = byte, next(numbers, 0), next(numbers, 0)
            return (2 | bits & 1) << (bits // 2 + 11) if lzma2 == 0x21 and bits <= 40 else 0  # noqa: PLR2004
        sizes -= byte < 0x80  # noqa: PLR2004  the last byte of a number
    return 0


def zstd_window(head: bytes) -> int:
    """The bytes of the window that the frame wants (RFC 8878, 3.1.1.1); 0 for one that is skipped, or cut off."""
    head = head.ljust(HEAD, b"\0")
    if head[0] != _MAGIC[3][0][0]:
        return 0
    descriptor = head[4]
    if descriptor & 0x20:  # one segment: the window is the whole content
        start, flag = 5 + (0, 1, 2, 4)[descriptor & 3], descriptor >> 6
        return int.from_bytes(head[start : start + (1, 2, 4, 8)[flag]], "little")
    base = 1 << (10 + (head[5] >> 3))
    return base + base // 8 * (head[5] & 7)
