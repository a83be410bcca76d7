"""A tar stream with members exchanged: what stays passes byte for byte, headers and all, so nothing can be lost on it.

Sources: pax(1), "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format" (the long
name records L and K); star(1) (SCHILY.xattr records).
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pxe_fetch.contract.problem import Problem
from pxe_pack.payload import Entry, Payload
from pxe_pack.tools import WorkError

BLOCK = 512
COPY = 1 << 20
SELINUX = "SCHILY.xattr.security.selinux"
EXTENSION_LIMIT = 16 << 20  # bytes of one extended header; xattrs are limited to 64 KiB each by Linux

_PROGRAM_SIBLINGS = "usr/bin"  # where the label of a program is found


class TarDamagedError(ValueError):
    """The stream is no tar stream; the text says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its headers as they came, and what they say."""

    headers: bytes
    path: str  # without "./" before and "/" after it; the root is empty
    link: str  # of a hard link: the path it leads to, likewise
    kind: bytes
    size: int  # of the data that follows
    label: bytes | None  # SELinux's


@dataclass(slots=True)
class _Labels:
    """What labels files have: by the folder, and by folders themselves."""

    files: dict[str, bytes] = field(default_factory=dict)
    folders: dict[str, bytes] = field(default_factory=dict)

    def see(self, member: Member) -> None:
        if member.label is None:
            return
        if member.kind == tarfile.DIRTYPE:
            self.folders[member.path] = member.label
        elif member.kind == tarfile.REGTYPE:
            self.files[member.path.rpartition("/")[0]] = member.label

    def of(self, entry: Entry) -> bytes | None:
        """The label for a new inode: a sibling's, else its folder's, as the kernel gives them."""
        folder = entry.path.rpartition("/")[0]
        if stat.S_ISREG(entry.mode):
            if entry.mode & 0o111 and (label := self.files.get(_PROGRAM_SIBLINGS)):
                return label
            if label := self.files.get(folder):
                return label
        while folder and folder not in self.folders:
            folder = folder.rpartition("/")[0]
        return self.folders.get(folder)


def exchange(
    source: IO[bytes], target: IO[bytes], *, payload: Payload, mtime: int, advance: Callable[[int], None]
) -> None:
    """Copy the tar stream `source` to `target`, without what `payload` replaces and with what it brings.

    `mtime` (seconds since the epoch) is the new members'. `advance` hears of the bytes copied. Raises TarDamagedError;
    WorkError when something that stays is a hard link to something that goes.
    """
    replaced = {entry.path for entry in payload.entries}
    labels = _Labels()
    for member in members(source):
        goes = member.path in replaced or payload.is_replaced(member.path)
        padded = member.size + -member.size % BLOCK
        if goes:
            _pass(source, None, padded)
            continue
        if member.kind == tarfile.LNKTYPE and (member.link in replaced or payload.is_replaced(member.link)):
            raise WorkError(_shared(member))
        labels.see(member)
        target.write(member.headers)
        _pass(source, target, padded)
        advance(len(member.headers) + padded)
    for entry in payload.entries:
        _add(target, entry, mtime=mtime, label=labels.of(entry))
        advance(entry.size)
    target.write(bytes(2 * BLOCK))


def members(source: IO[bytes]) -> Iterator[Member]:
    """The members of a tar stream. The data of each has to be read off `source` before the next is asked for."""
    while True:
        headers = b""
        given: dict[str, bytes] = {}
        while True:
            header = _exactly(source, BLOCK)
            if not header.strip(b"\0"):
                _drain(source)
                return
            headers += header
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise TarDamagedError(str(error)) from error
            if info.type not in (b"x", b"g", b"L", b"K"):
                break
            if info.size > EXTENSION_LIMIT:
                raise TarDamagedError("an extended header is too large")
            data = _exactly(source, info.size + -info.size % BLOCK)
            headers += data
            given.update(_extension(info.type, data[: info.size]))
        path = _plain(_text(given.get("path")) or info.name)
        size = int(given["size"]) if "size" in given else info.size
        yield Member(
            headers=headers,
            path=path,
            link=_plain(_text(given.get("linkpath")) or info.linkname),
            kind=tarfile.REGTYPE if info.type == tarfile.AREGTYPE else info.type,
            size=size if info.isreg() else 0,
            label=given.get(SELINUX),
        )


def _extension(kind: bytes, data: bytes) -> dict[str, bytes]:
    if kind == b"L":
        return {"path": data.rstrip(b"\0")}
    if kind == b"K":
        return {"linkpath": data.rstrip(b"\0")}
    values = {}
    while data:
        length_text, _, _ = data.partition(b" ")
        if not length_text.isdigit() or not len(length_text) < int(length_text) <= len(data):
            raise TarDamagedError("an extended header is damaged")
        length = int(length_text)
        name, _, value = data[len(length_text) + 1 : length - 1].partition(b"=")
        values[name.decode(errors="replace")] = value
        data = data[length:]
    return values


def _text(value: bytes | None) -> str:
    return os.fsdecode(value) if value else ""


def _plain(path: str) -> str:
    return path.removeprefix("./").strip("/") if path != "." else ""


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise TarDamagedError("it ends too soon")
    return data


def _pass(source: IO[bytes], target: IO[bytes] | None, size: int) -> None:
    while size:
        data = _exactly(source, min(size, COPY))
        size -= len(data)
        if target:
            target.write(data)


def _drain(source: IO[bytes]) -> None:
    while source.read(COPY):
        pass


def _add(target: IO[bytes], entry: Entry, *, mtime: int, label: bytes | None) -> None:
    info = tarfile.TarInfo(f"./{entry.path}")
    info.mode, info.mtime = stat.S_IMODE(entry.mode), mtime
    info.type = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}.get(
        stat.S_IFMT(entry.mode), tarfile.REGTYPE
    )
    info.linkname = entry.target
    info.size = entry.size if info.isreg() else 0
    if label is not None:
        info.pax_headers = {SELINUX: label.decode("utf-8", "surrogateescape")}
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
