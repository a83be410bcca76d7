"""Replace members of a tar stream. Other members pass through byte for byte, headers included, so nothing is lost.

Sources: see image/tar_members.py, which reads the stream.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.tar_members import BLOCK, COPY, XATTR, Member, TarDamagedError, exactly, members
from pxe_pack.payload import Entry, Payload
from pxe_pack.tools import WorkError

__all__ = ["TarDamagedError", "replace_members"]


def replace_members(
    source: IO[bytes],
    target: IO[bytes],
    *,
    payload: Payload,
    mtime: int,
    xattrs: Callable[[Entry], Mapping[str, bytes]],
    advance: Callable[[int], None],
) -> None:
    """Copy the tar stream `source` to `target`, dropping what `payload` replaces and adding its entries at the end.

    New members get `mtime` (seconds since the epoch) and the extended attributes returned by `xattrs`; `advance` is
    called with the number of bytes copied. Raises TarDamagedError, and WorkError if a member that stays is a hard link
    to one that is dropped.
    """
    replaced = {entry.path for entry in payload.entries}
    for member in members(source):
        dropped = member.path in replaced or payload.is_replaced(member.path)
        padded = member.size + -member.size % BLOCK
        if dropped:
            _copy(source, None, padded)
            continue
        if member.kind == tarfile.LNKTYPE and (member.link in replaced or payload.is_replaced(member.link)):
            raise WorkError(_hard_linked(member))
        target.write(member.headers)
        _copy(source, target, padded)
        advance(len(member.headers) + padded)
    for entry in payload.entries:
        _add(target, entry, mtime=mtime, xattrs=xattrs(entry))
        advance(entry.size)
    target.write(bytes(2 * BLOCK))


def _copy(source: IO[bytes], target: IO[bytes] | None, size: int) -> None:
    while size:
        data = exactly(source, min(size, COPY))
        size -= len(data)
        if target:
            target.write(data)


def _add(target: IO[bytes], entry: Entry, *, mtime: int, xattrs: Mapping[str, bytes]) -> None:
    info = tarfile.TarInfo(f"./{entry.path}")
    info.mode, info.mtime = stat.S_IMODE(entry.mode), mtime
    info.type = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}.get(
        stat.S_IFMT(entry.mode), tarfile.REGTYPE
    )
    info.linkname = entry.target
    info.size = entry.size if info.isreg() else 0
    info.pax_headers = {XATTR + name: value.decode("utf-8", "surrogateescape") for name, value in xattrs.items()}
    target.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    if not info.isreg():
        return
    if isinstance(entry.content, Path):
        with entry.content.open("rb") as file:
            _copy(file, target, info.size)
    else:
        target.write(entry.content)
    target.write(bytes(-info.size % BLOCK))


def _hard_linked(member: Member) -> Problem:
    return Problem(
        reference="payload-hardlinked",
        message=f"/{member.path} in the image is a hard link to /{member.link}, which pxe-pack replaces",
        hint="make it a separate file in the image",
    )
