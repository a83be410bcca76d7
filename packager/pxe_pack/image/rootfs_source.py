"""A root filesystem as input: which of the three forms it has, and the file names that decide whether it can boot.

An os-release file at its standard path (os-release(5)) is what distinguishes it: a folder or an archive of boot files
has none. The names are read before anything is written, because compressing takes minutes.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.tar import TarReader
from pxe_pack.image import archive, squashfs
from pxe_pack.image.decompress import DAMAGED
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.rootfs import OS_RELEASE
from pxe_pack.image.squashfs import open_tree
from pxe_pack.tools import InputError

Form = Literal["directory", "tar", "squashfs"]

_LOADERS = ("bootx64.efi", "bootaa64.efi")  # at the top of a pxe-tar
_ISO_MAGIC_AT, _ISO_MAGIC = 16 * SECTOR + 1, b"CD001"
_KEPT = ("boot/config-", "usr/lib/modules/")


@dataclass(frozen=True, kw_only=True, slots=True)
class RootfsSource:
    """A root filesystem given as input, not yet unpacked or compressed."""

    path: Path
    form: Form
    names: frozenset[str]  # of files and links below boot and usr/lib/modules; no leading slash
    configs: tuple[str, ...] = ()  # contents of the kernel config files found
    newest: int = 0  # modification time of its newest file, seconds since the epoch
    size: int = 0  # of its files, in bytes


def detect_rootfs(path: Path) -> RootfsSource | None:
    """The root filesystem at `path`; None if `path` is something else, such as an ISO.

    Raises InputError if it is one but cannot be read, or if it contains names that escape it.
    """
    try:
        form = _form(path)
    except OSError:  # reported when it is opened as another kind of image
        return None
    try:
        if form == "directory":
            return _folder(path)
        return _squashfs(path) if form == "squashfs" else _tar(path) if form == "tar" else None
    except OSError as error:
        raise InputError(
            Problem(
                reference="root-unreadable",
                message=f"cannot read the root filesystem {path}: {error.filename or path}: {error.strerror}",
                hint="create a tar of it as root: tar --xattrs -C DIR -cf root.tar .",
            )
        ) from error


def _form(path: Path) -> Form | None:
    """The form that `path` may have, judged by its first bytes; None if it has none. Raises OSError."""
    if path.is_dir():
        inner = [path / name for name in OS_RELEASE]
        return "directory" if any(one.is_symlink() or one.exists() for one in inner) else None
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if squashfs.superblock(file):
            return "squashfs"
    return "tar" if archive.is_archive(path) else None


def _folder(path: Path) -> RootfsSource:
    newest = size = 0
    for name in every_name(path):
        status = (path / name).lstat()
        newest = max(newest, int(status.st_mtime))
        if stat.S_ISREG(status.st_mode):
            size += status.st_size
            if not os.access(path / name, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path / name))
    names = frozenset(_below(path, "boot")) | frozenset(_below(path, "usr/lib/modules"))
    kept = [path / name for name in sorted(names) if _is_config(name) and (path / name).is_file()]
    configs = [file.read_text(errors="replace") for file in kept]
    return RootfsSource(path=path, form="directory", names=names, configs=tuple(configs), newest=newest, size=size)


def every_name(path: Path) -> Iterator[str]:
    """Every name below the folder, sorted, parents first. Skips what is mounted on proc, sys, dev, run and tmp."""
    top = path.lstat().st_dev

    def below(prefix: str) -> Iterator[str]:
        with os.scandir(path / prefix) as entries:
            found = sorted(entries, key=lambda one: one.name)
        for entry in found:
            name = f"{prefix}{entry.name}"
            yield name
            mounted = name in _MOUNTS and entry.stat(follow_symlinks=False).st_dev != top
            if entry.is_dir(follow_symlinks=False) and not mounted:
                yield from below(f"{name}/")

    yield from below("")


_MOUNTS = frozenset({"proc", "sys", "dev", "run", "tmp"})


def _below(path: Path, folder: str) -> Iterator[str]:
    """Names up to two levels below a folder; none if the folder is a link."""
    top = path / folder
    if top.is_symlink() or not top.is_dir():
        return
    for one in sorted(top.iterdir()):
        yield f"{folder}/{one.name}"
        if one.is_dir() and not one.is_symlink():
            yield from (f"{folder}/{one.name}/{inner.name}" for inner in sorted(one.iterdir()))


def _squashfs(path: Path) -> RootfsSource | None:
    names: set[str] = set()
    with path.open("rb") as file:
        superblock = squashfs.superblock(file)
    with open_tree(path) as tree:
        if not tree.stat(OS_RELEASE).keys() & set(OS_RELEASE):
            return None
        for folder in ("boot", "usr/lib/modules"):
            for inode in tree.inside(folder):
                names.add(inode.path)
                names |= {inner.path for inner in tree.inside(inode.path)}
    return RootfsSource(
        path=path,
        form="squashfs",
        names=frozenset(names),
        newest=superblock.mkfs_time if superblock else 0,
        size=path.stat().st_size,
    )


def _tar(path: Path) -> RootfsSource | None:
    """The archive as a root filesystem; None if it is a pxe-tar, has no os-release, or is damaged before it."""
    names: set[str] = set()
    configs: list[str] = []
    newest = size = 0
    found = False
    count, text, kept = Usage(Limit.ROOT_NAMES), Usage(Limit.NAMES_SIZE), Usage(Limit.ROOT_CONFIGS)
    try:
        with archive.members(path) as tar:
            for member in tar:
                count.add()
                Limit.PATH.check(max(len(member.name), len(member.linkname)))
                name = _plain(path, member.name)
                found = found or name in OS_RELEASE
                if not found and _belongs_to_pxe_tar(tar, member, name):
                    return None
                newest = max(newest, int(member.mtime))
                size += member.size if member.isreg() else 0
                if name.startswith(("boot/", "usr/lib/modules/")) and not member.isdir():
                    text.add(len(name))
                    names.add(name)
                if _is_config(name) and member.isreg() and member.size <= Limit.ROOT_TEXT.most:
                    kept.add(member.size)
                    configs.append(b"".join(tar.content(member)).decode(errors="replace"))
    except (tarfile.TarError, *DAMAGED) as error:
        if not found:
            return None
        raise InputError(
            Problem(
                reference="image-damaged",
                message=f"{path} is a damaged archive: {str(error) or 'unexpected end of file'}",
                hint="create it again: tar --xattrs -C DIR -cf root.tar .",
            )
        ) from error
    if not found:
        return None
    return RootfsSource(path=path, form="tar", names=frozenset(names), configs=tuple(configs), newest=newest, size=size)


def _belongs_to_pxe_tar(tar: TarReader, member: tarfile.TarInfo, name: str) -> bool:
    if name.lower() in _LOADERS:
        return True
    if not member.isreg() or member.size <= _ISO_MAGIC_AT or "/" in name:
        return False
    head = b""
    for piece in tar.content(member):
        head += piece
        if len(head) >= _ISO_MAGIC_AT + len(_ISO_MAGIC):
            break
    return head[_ISO_MAGIC_AT:].startswith(_ISO_MAGIC)


def _plain(path: Path, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InputError(
            Problem(
                reference="image-tar-unsafe",
                message=f"{path} contains a name that escapes it, {name!r}",
                hint="create it again, from the top of the root filesystem: tar --xattrs -C DIR -cf root.tar .",
            )
        )
    return "/".join(parts)


def _is_config(name: str) -> bool:
    return name.startswith(_KEPT) and name.rpartition("/")[2].startswith("config")
