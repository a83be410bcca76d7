"""A tar stream with members exchanged: what stays passes byte for byte, headers and all, so nothing can be lost on it.

Sources: see image/tarmembers.py, which reads it.
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
    """Copy the tar stream `source` to `target`, without what `payload` replaces and with what it brings.

    `mtime` (seconds since the epoch) is the new members', `xattrs` gives their extended attributes, and `advance` hears
    of the bytes copied. Raises TarDamagedError; WorkError when something that stays is a hard link to something that
    goes.
    """
    replaced = {entry.path for entry in payload.entries}
    for member in members(source):
        goes = member.path in replaced or payload.is_replaced(member.path)
        padded = member.size + -member.size % BLOCK
        if goes:
            _pass(source, None, padded)
            continue
        if member.kind == tarfile.LNKTYPE and (member.link in replaced or payload.is_replaced(member.link)):
            raise WorkError(_shared(member))
        target.write(member.headers)
        _pass(source, target, padded)
        advance(len(member.headers) + padded)
    for entry in payload.entries:
        _add(target, entry, mtime=mtime, xattrs=xattrs(entry))
        advance(entry.size)
    target.write(bytes(2 * BLOCK))


def _pass(source: IO[bytes], target: IO[bytes] | None, size: int) -> None:
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
            _pass(file, target, info.size)
    else:
        target.write(entry.content)
    target.write(bytes(-info.size % BLOCK))


def _shared(member: Member) -> Problem:
    return Problem(
        reference="payload-hardlinked",
        message=f"/{member.path} in the image is a hard link to /{member.link}, which the pack replaces",
        hint="make it a file of its own in the image",
    )
