"""The record of what pxe-pack appended to an initrd: one small file in the initrd's last archive.

It holds the size and digest of the original initrd, so that the addition can be recognised and cut off exactly. It is a
regular archive, because after the last archive the kernel accepts only zeros (init/initramfs.c).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pxe_pack.hashing import BLOCK, SizeAndDigest
from pxe_pack.image.initrd.cpio import Source

_MAGIC = b'{"pxe_pack_initrd": 1, '
_TAIL = 1024  # bytes at the end of the initrd that are searched for it


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """The original initrd before pxe-pack appended to it, and what was appended."""

    before: SizeAndDigest
    agent: str  # its version; empty if there is none, but only what verifies the ISO
    verifies_iso: bool = False

    def pack(self) -> bytes:
        """The content of the record's file."""
        fields: dict[str, object] = {"agent": self.agent, "size": self.before.size, "sha256": self.before.sha256}
        if self.verifies_iso:
            fields["verifies_iso"] = True
        return _MAGIC + json.dumps(fields).removeprefix("{").encode() + b"\n"


def appended(source: Source, *, size: int) -> Appended | None:
    """The record at the end of the initrd of `size` bytes; None if there is none, or if it does not match."""
    tail = source(max(size - _TAIL, 0), _TAIL)
    at = tail.rfind(_MAGIC)
    if at < 0:
        return None
    try:
        fields = json.loads(tail[at : tail.index(b"\n", at)])
        verifies_iso = fields.get("verifies_iso") is True
        agent, before = str(fields["agent"]), SizeAndDigest(size=int(fields["size"]), sha256=str(fields["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError):  # the last: nested too deeply
        return None
    if not 0 < before.size < size or _digest(source, before.size) != before.sha256:
        return None
    return Appended(before=before, agent=agent, verifies_iso=verifies_iso)


def _digest(source: Source, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, BLOCK):
        digest.update(source(offset, min(BLOCK, size - offset)))
    return digest.hexdigest()
