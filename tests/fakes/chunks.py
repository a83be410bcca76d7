"""The SHA-256 of each chunk of a file, computed without the agent's own code, and a server's list of them."""

from __future__ import annotations

import hashlib


def chunk_digests(body: bytes, *, size: int) -> list[str]:
    """The hexadecimal digests of `body`'s chunks of `size` bytes, the last of which may be shorter."""
    return [hashlib.sha256(body[at : at + size]).hexdigest() for at in range(0, len(body), size)]


def chunk_listing(body: bytes, *, size: int) -> bytes:
    """A file with one of these digests a line."""
    return "".join(f"{digest}\n" for digest in chunk_digests(body, size=size)).encode()
