"""Chunk digests: how a file is divided into chunks, and the list of their digests.

The list has one SHA-256 a line, 64 lower-case hexadecimal digits, in file order; in memory it is 32 bytes a
chunk. All chunks have the same size, except that the last may be shorter.
"""

from __future__ import annotations

from pxe_fetch.contract import quantity
from pxe_fetch.contract.problem import RuleError

SUFFIX = ".chunks"  # of the list that pxe-pack writes beside a file
DIGEST = 32  # bytes
LINE = 65  # bytes: 64 hexadecimal digits and a newline
STEP = 4 * 1024  # a page: chunks begin at block boundaries of the file system
SMALLEST = 64 * 1024
LARGEST = 1024 * 1024 * 1024
MOST = 1 << 17  # chunks: 4 MiB of digests


def chunk_size(text: str) -> int:
    """A chunk size in bytes."""
    size = quantity.size(text)
    if size % STEP or not SMALLEST <= size <= LARGEST:
        raise RuleError(
            "is not a valid chunk size",
            reference="chunk-size-invalid",
            label="a multiple of 4 KiB from 64 KiB to 1 GiB",
            hint="4MiB suits most files",
        )
    return size


def count(size: int, *, chunk: int) -> int:
    """How many chunks of `chunk` bytes a file of `size` bytes has."""
    return -(-size // chunk)


def fitting(size: int, *, least: int = SMALLEST, most: int = MOST) -> int:
    """The chunk size for a file of `size` bytes: `least`, doubled until there are at most `most` chunks."""
    return next(each for each in (least << power for power in range(64)) if count(size, chunk=each) <= most)


def listed(digests: bytes) -> str:
    """The list of `digests` as the text of a file."""
    return "".join(f"{digests[at : at + DIGEST].hex()}\n" for at in range(0, len(digests), DIGEST))


def unlisted(text: bytes, *, number: int) -> bytes:
    """The digests in the text of a list of `number` chunks. Raises ValueError that says what is wrong with it."""
    lines = text.split()
    if len(lines) != number:
        raise ValueError(f"it has {len(lines)} lines, but the file has {number} chunks")
    try:
        digests = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ValueError("it has lines that are not SHA-256 digests") from None
    if any(len(line) != LINE - 1 for line in lines):
        raise ValueError("it has lines that are not SHA-256 digests")
    return digests
