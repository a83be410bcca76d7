"""The record of what pxe-pack appended to an initrd: the last archive of it, with one small file that says so.

It has what the initrd was before, its size and its digest, so that the addition can be told and cut off exactly. It is
an archive like the others, since behind its last archive the kernel takes zeros only (init/initramfs.c).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pxe_pack.hashing import BLOCK, SizeAndDigest
from pxe_pack.image.initrd.cpio import Source

_MAGIC = b'{"pxe_pack_initrd": 1, '
_REACH = 1024  # bytes from the end within which it begins


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """What an initrd was before pxe-pack appended to it, and which agent that brought."""

    before: SizeAndDigest
    agent: str  # its version

    def pack(self) -> bytes:
        """The record's text."""
        fields = {"agent": self.agent, "size": self.before.size, "sha256": self.before.sha256}
        return _MAGIC + json.dumps(fields).removeprefix("{").encode() + b"\n"


def appended(source: Source, *, size: int) -> Appended | None:
    """The record at the end of the initrd of `size` bytes; None unless what is before it is what the record says."""
    tail = source(max(size - _REACH, 0), _REACH)
    at = tail.rfind(_MAGIC)
    if at < 0:
        return None
    try:
        fields = json.loads(tail[at : tail.index(b"\n", at)])
        agent, before = str(fields["agent"]), SizeAndDigest(size=int(fields["size"]), sha256=str(fields["sha256"]))
    except (ValueError, KeyError, TypeError):
        return None
    if not 0 < before.size < size or _digest(source, before.size) != before.sha256:
        return None
    return Appended(before=before, agent=agent)


def _digest(source: Source, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, BLOCK):
        digest.update(source(offset, min(BLOCK, size - offset)))
    return digest.hexdigest()
