"""Chunk digests: how a file is cut, and the list of its chunks' digests.

The list has one SHA-256 a line, 64 lower-case hexadecimal digits, in the order of the file; in memory it is 32 bytes a
chunk. All chunks are of one size but the last, which has what remains.
"""

from __future__ import annotations

SUFFIX = ".chunks"  # of the list that pxe-pack writes beside a file
DIGEST = 32  # bytes
LINE = 65  # bytes: 64 hexadecimal digits and a newline
STEP = 4 * 1024  # a page: chunks begin where a file system's blocks do
SMALLEST = 64 * 1024
LARGEST = 1024 * 1024 * 1024
MOST = 1 << 17  # chunks: 4 MiB of digests


def count(size: int, *, chunk: int) -> int:
    """How many chunks of `chunk` bytes a file of `size` bytes has."""
    return -(-size // chunk)


def fitting(size: int, *, least: int = SMALLEST) -> int:
    """The size of chunks for a file of `size` bytes: `least`, doubled until there are at most MOST."""
    return next(each for each in (least << power for power in range(64)) if count(size, chunk=each) <= MOST)


def listed(digests: bytes) -> str:
    """The list of `digests`, as a file has it."""
    return "".join(f"{digests[at : at + DIGEST].hex()}\n" for at in range(0, len(digests), DIGEST))


def unlisted(text: bytes, *, number: int) -> bytes:
    """The digests of a list that has to have `number` of them. Raises ValueError, which says what is wrong with it."""
    lines = text.split()
    if len(lines) != number:
        raise ValueError(f"it has {len(lines)} lines, and the file has {number} chunks")
    try:
        digests = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ValueError("it has something else than SHA-256 digests") from None
    if any(len(line) != LINE - 1 for line in lines):
        raise ValueError("it has something else than SHA-256 digests")
    return digests
