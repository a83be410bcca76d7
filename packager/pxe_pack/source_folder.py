"""A folder given as an artifact's `source`: its contents, and the files in it that a node would refuse to unpack.

What a node refuses is defined in pxe_fetch.contract.tar. Hard links are packed as separate files; extended
attributes, owners and times are ignored.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.paths import LONGEST_NAME
from pxe_fetch.contract.problem import Problem, is_shown
from pxe_fetch.contract.tar import MAX_DEPTH, MOST_MEMBERS, leads_outside

_MOST_SHOWN = 20  # problems shown for one folder
_USTAR_NAME = 100  # bytes; the longest name or link target in a plain tar header
_USTAR_SIZE = 8 << 30  # bytes; too large for a plain tar header
_SPECIAL = {
    stat.S_IFBLK: "is a device",
    stat.S_IFCHR: "is a device",
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFSOCK: "is a socket",
}
_LEAVE_OUT = "only files, folders and symbolic links can be packed; move it out of the folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file, folder or symbolic link in the folder."""

    path: str  # relative to the folder
    status: os.stat_result
    target: str = ""  # symbolic links only

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_folder(self) -> bool:
        """True for a folder."""
        return stat.S_ISDIR(self.status.st_mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Something in the folder that cannot be packed. `reason` is a sentence without its subject, the path."""

    path: str
    reason: str
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderScan:
    """The contents of a folder. Two scans are equal exactly if nothing in it changed between them."""

    members: int
    files: int
    size: int  # bytes in its files
    archive: int  # upper limit for the archive, in bytes
    longest: str  # the longest path
    newest: str  # the path whose inode changed last
    fingerprint: str  # hash of all paths, modes, sizes, times and link targets


def walk(folder: Path) -> Iterator[Member | Refused]:
    """Yield everything in `folder`, each folder before its contents, names ordered by code point."""
    pending = [_listed(folder, "")]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        yield found
        if isinstance(found, Member) and found.is_folder:
            pending.append(_listed(folder, f"{found.path}/"))


def _listed(folder: Path, prefix: str) -> Iterator[Member | Refused]:
    try:
        names = sorted(os.listdir(folder / prefix))  # noqa: PTH208  there may be a million names
    except OSError as error:
        yield _unreadable(prefix or ".", error)
        return
    if names and prefix.count("/") >= MAX_DEPTH:
        reason = f"is more than {MAX_DEPTH} folders deep"
        yield Refused(path=prefix + names[0], reason=reason, hint="move it up: no node would unpack it")
        return
    for name in names:
        yield _inspect(folder, prefix + name)


def _inspect(folder: Path, path: str) -> Member | Refused:
    full = f"{folder}/{path}"
    if reason := _name_fault(path.rpartition("/")[2]):
        return Refused(path=path, reason=reason, hint="rename it")
    try:
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        target = os.readlink(full) if kind == stat.S_IFLNK else ""  # noqa: PTH115
        if kind == stat.S_IFREG and not os.access(full, os.R_OK, effective_ids=True):
            return Refused(path=path, reason="cannot be read: Permission denied", hint=_read_hint())
    except OSError as error:
        return _unreadable(path, error)
    if kind in _SPECIAL:
        return Refused(path=path, reason=_SPECIAL[kind], hint=_LEAVE_OUT)
    if kind == stat.S_IFLNK and (reason := _link_fault(target, depth=path.count("/"))):
        hint = "make it a relative link to something in the folder, with `..` only at the front"
        return Refused(path=path, reason=reason, hint=hint)
    return Member(path=path, status=status, target=target)


def _name_fault(name: str) -> str:
    """Why a file's name cannot be packed; empty if it can."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    return f"has a name of {length} bytes; the limit is {LONGEST_NAME}" if length > LONGEST_NAME else ""


def _link_fault(target: str, *, depth: int) -> str:
    try:
        target.encode()
    except UnicodeEncodeError:
        return "is a link to a name that is not UTF-8"
    if target.startswith("/"):
        return f"is a link to an absolute path: {target}"
    return f"is a link that may lead out of the folder: {target}" if leads_outside(target, depth=depth) else ""


def _unreadable(path: str, error: OSError) -> Refused:
    return Refused(path=path.rstrip("/"), reason=f"cannot be read: {error.strerror}", hint=_read_hint())


def _read_hint() -> str:
    return f"pxe-pack runs as user ID {os.geteuid()}; let that user read it, or move it out of the folder"


def scan_folder(folder: Path) -> tuple[FolderScan, list[Problem]]:
    """Scan `folder`. Returns its contents, and a problem for each file that cannot be packed. Raises OSError."""
    members = files = size = 0
    archive = 2 * tarfile.RECORDSIZE
    longest = newest = ""
    latest = folder.stat().st_ctime_ns
    seen = hashlib.sha256(f"{latest}\0".encode())
    refused: list[Refused] = []
    for found in walk(folder):
        members += 1
        if members > MOST_MEMBERS:
            break
        if isinstance(found, Refused):
            refused.append(found)
            continue
        status = found.status
        archive += _archived_size(found)
        longest = max(longest, found.path, key=lambda path: len(path.encode()))
        if status.st_ctime_ns > latest:
            latest, newest = status.st_ctime_ns, found.path
        facts = [status.st_mode, status.st_mtime_ns, status.st_ctime_ns]
        if found.is_file:
            files += 1
            size += status.st_size
            facts.append(status.st_size)
        seen.update(f"{found.path}\0{found.target}\0{facts}\0".encode())
    result = FolderScan(
        members=members,
        files=files,
        size=size,
        archive=archive + (archive >> 7),  # incompressible data grows a little: ZSTD_COMPRESSBOUND
        longest=longest,
        newest=newest or ".",
        fingerprint=seen.hexdigest(),
    )
    return result, _problems(folder, refused, members=members)


def _problems(folder: Path, refused: list[Refused], *, members: int) -> list[Problem]:
    problems = [
        Problem(reference="source-member", message=f"{printable(folder / one.path)} {one.reason}", hint=one.hint)
        for one in refused[:_MOST_SHOWN]
    ]
    if more := len(refused) - _MOST_SHOWN:
        message = f"{printable(folder)} has {more} more files that cannot be packed"
        problems += [Problem(reference="source-member", message=message)] if more > 0 else []
    if members > MOST_MEMBERS:
        message = f"{printable(folder)} has more than {MOST_MEMBERS:,} files and folders, the most a node unpacks"
        hint = "split it into several artifacts"
        problems.append(Problem(reference="source-members", message=message, hint=hint))
    return problems


def printable(path: Path) -> str:
    """`path` for use in a message: on one line, whatever characters it contains."""
    text = str(path)
    return text if is_shown(text) else ascii(text)


def _archived_size(member: Member) -> int:
    """An upper limit for the bytes that the member takes in a tar archive."""
    names = [member.path + "/" * member.is_folder, member.target]
    size = member.status.st_size if member.is_file else 0
    block = tarfile.BLOCKSIZE
    fits = all(name.isascii() and len(name) <= _USTAR_NAME for name in names) and size < _USTAR_SIZE
    # a pax header and its records: names with keyword and length, and the size
    extended = 0 if fits else 2 * block + _padded(sum(len(name.encode()) + block // 4 for name in names))
    return extended + block + _padded(size)


def _padded(size: int) -> int:
    return size + -size % tarfile.BLOCKSIZE
