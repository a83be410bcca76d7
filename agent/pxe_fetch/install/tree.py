"""Install a tar archive as a directory tree: unpack it beside the destination, then swap the two.

As for a file, all of it happens in the destination's open folder, and in the open staging directory below it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from contextlib import suppress
from io import BufferedIOBase, BufferedReader

from pxe_fetch.chunkmap import Check
from pxe_fetch.contract.compression import LONGEST_MAGIC, kind_of
from pxe_fetch.contract.paths import STAGING_SUFFIX
from pxe_fetch.contract.tar import MOST_MEMBERS, TarReader, longest_member
from pxe_fetch.errors import CannotCreateError, DiskError, NoRoomError, PolicyError
from pxe_fetch.filesystem import (
    FOLDER_MODE,
    NOT_A_FOLDER,
    OPEN_FOLDER,
    Folder,
    closing_fd,
    no_room,
    read_mounts,
    translate_error,
)
from pxe_fetch.install.decompress import Content, part_reader
from pxe_fetch.install.disk_space import available
from pxe_fetch.install.file import check_installed, read_record, set_owner_and_mode, write_record
from pxe_fetch.install.unpack import Unpacker
from pxe_fetch.plan import Transfer, beside

try:
    # The C module under ctypes. Importing ctypes itself creates a callback, which takes executable memory (Python
    # 3.11); the unit forbids that (MemoryDenyWriteExecute=).
    import _ctypes
except ImportError:  # a Python without libffi
    _ctypes = None  # type: ignore[assignment]

_INODE = 1024  # bytes of memory or disk that a member takes at least: its inode and its name
FORMER_SUFFIX = ".pxe-fetch-former"
RECORD_SUFFIX = ".pxe-fetch-tree"  # beside the tree: the archive's identity, and a digest of the tree's metadata
_RENAME_EXCHANGE = 2  # <linux/fs.h>


def is_current(transfer: Transfer, folder: Folder, check: Check) -> bool:
    """Whether the destination is the tree that an earlier run made of this archive, unchanged.

    The record beside it has the archive's digest, and the names, types, modes, owners, sizes and times of everything
    unpacked. The content is not read again. Raises FetchError if the destination is not a directory: no tree replaces
    it, so nothing is fetched; and what `check` raises.
    """
    try:
        tree = os.open(transfer.dest.name, OPEN_FOLDER, dir_fd=folder.fd)
    except OSError as error:
        if error.errno in NOT_A_FOLDER:
            raise CannotCreateError(f"{transfer.dest} exists and is not a directory: no tree replaces it") from None
        return False
    with closing_fd(tree):
        record = read_record(transfer, folder, RECORD_SUFFIX)
        try:
            is_ours = record != "" and record == _record(transfer, tree, check)
        except (OSError, RecursionError):  # os.fwalk of Python 3.11 recurses, and somebody may have added folders
            return False
    if is_ours:
        with suppress(OSError):
            _clear(transfer, folder)
    return is_ours


def install(transfer: Transfer, folder: Folder, part: int, check: Check) -> None:
    """Turn the content of the verified archive into the destination.

    Members get the configured owner (else the agent's); the directory itself gets the configured mode (else 0755).
    Set-id bits and write permission for group and others are dropped (as by tarfile's `data` filter), and the owner can
    write all of it. Raises OSError, FetchError and what `check` raises; the destination is then unchanged.
    """
    staging, former = beside(transfer.dest, STAGING_SUFFIX).name, f"{folder.path}/{transfer.dest.name}/"
    for mount in read_mounts():
        if f"{mount.point}/".startswith(former):
            raise CannotCreateError(f"{mount.point} is a mount point, and cannot be replaced: unmount it")
    _clear(transfer, folder)
    os.mkdir(staging, 0o700, dir_fd=folder.fd)  # nobody else gets below it until it is complete
    try:
        with closing_fd(os.open(staging, OPEN_FOLDER, dir_fd=folder.fd)) as tree:
            if os.fstat(tree).st_uid not in folder.owners:
                raise DiskError(f"{staging} was replaced by another program as soon as it was created")
            _fill(tree, part, transfer, folder, check)
            status = set_owner_and_mode(tree, transfer, default=FOLDER_MODE)
            if not _call("syncfs", tree):  # else a power cut may leave empty files under the right names
                os.sync()
            check()
            _swap(transfer, folder, staging)
            check_installed(transfer, folder, status)
            write_record(transfer, folder, RECORD_SUFFIX, lambda: _record(transfer, tree, check))
            os.fsync(folder.fd)
    finally:
        with suppress(OSError):
            folder.remove(staging)  # or the former tree


def _clear(transfer: Transfer, folder: Folder) -> None:
    """Remove what a run that was killed left beside the destination. Raises OSError."""
    for suffix in (STAGING_SUFFIX, FORMER_SUFFIX):
        folder.remove(beside(transfer.dest, suffix).name)


def _fill(tree: int, part: int, transfer: Transfer, folder: Folder, check: Check) -> None:
    """Unpack the archive `part` into the open, empty directory `tree`. Raises OSError and FetchError."""
    free, status = available(tree, folder.path), os.fstatvfs(tree)
    members, size, longest = 0, 0, longest_member(str(transfer.dest))
    try:
        with part_reader(part) as packed, Unpacker(tree, uid=transfer.uid, gid=transfer.gid, check=check) as unpacker:
            archive = TarReader(_uncompressed(packed))
            for member in archive:
                check()
                members += 1
                size += _INODE + (member.size if member.isreg() else 0)
                if len(os.fsencode(member.name)) > longest:
                    raise PolicyError(f"the archive has a path of more than {longest} bytes")
                if members > MOST_MEMBERS:
                    raise PolicyError(f"the archive has more than {MOST_MEMBERS} members")
                if status.f_files and members > status.f_favail:
                    raise NoRoomError(f"no room for the archive's members: {no_room(folder.path, inodes=members)}")
                if size > free:
                    raise NoRoomError(f"no room for the unpacked archive: {no_room(folder.path, wanted=size)}")
                unpacker.add(archive, member)
    except OSError as error:  # now: removing the staging tree frees the space that is missing
        raise translate_error(error, f"cannot unpack {transfer.dest}", where=folder.path) from error
    except (tarfile.TarError, EOFError, ValueError, ArithmeticError) as error:
        # The digest is right, so this is the configured archive, and another attempt would not help.
        raise PolicyError(f"the fetched file is not a complete tar archive: {error}") from None


def _uncompressed(packed: BufferedReader) -> BufferedIOBase:
    """The file `packed`, decompressed if it is compressed."""
    is_compressed = kind_of(packed.peek(LONGEST_MAGIC)[:LONGEST_MAGIC]) is not None
    return Content(packed) if is_compressed else packed


def _swap(transfer: Transfer, folder: Folder, staging: str) -> None:
    """Replace whatever is at the destination by the directory `staging`. Raises OSError or FetchError."""
    dest = transfer.dest.name

    def rename(old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)

    try:
        rename(staging, dest)  # missing, or an empty directory
    except OSError:
        os.stat(dest, dir_fd=folder.fd, follow_symlinks=False)  # raises where nothing is in the way
    else:
        return
    if _call("renameat2", folder.fd, os.fsencode(staging), folder.fd, os.fsencode(dest), _RENAME_EXCHANGE):
        return  # `staging` now is the former tree
    # For a moment the destination is absent, which is allowed too. If the run is killed now, the next unpacks again.
    former = beside(transfer.dest, FORMER_SUFFIX).name
    try:
        rename(dest, former)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # overlayfs does not rename a directory of its lower layer, and emptying it would not be all or nothing.
        raise CannotCreateError(
            f"{transfer.dest} is a directory of the image itself, which cannot be replaced as a whole; choose another "
            "dest, or remove or empty the directory in the image"
        ) from None
    try:
        rename(staging, dest)
    except OSError:
        rename(former, dest)
        raise
    folder.remove(former)


def _call(function: str, *arguments: bytes | int) -> bool:
    """Call a function of the C library that Python has no name for; False if it is missing or fails.

    renameat2(2), RENAME_EXCHANGE swaps two names in one step. It needs glibc 2.28, and support by the kernel and the
    file system: ext4, xfs, btrfs and tmpfs have it, overlayfs does not for directories of its lower layer. syncfs(2)
    writes one file system to disk.
    """
    try:
        # dlopen(3): None stands for the program itself, which has the C library in it.
        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), function)  # type: ignore[arg-type]
        failed: int = _ctypes.call_function(address, arguments)
    except (AttributeError, OSError):
        return False
    return failed == 0


def _record(transfer: Transfer, tree: int, check: Check) -> str:
    """The configured owner and mode, and a digest of the tree's metadata. Raises OSError."""
    seen = hashlib.sha256()
    for path, folders, files, fd in os.fwalk(".", dir_fd=tree, onerror=_raise):
        check()
        folders.sort()
        for name in sorted([*folders, *files]):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            facts = [status.st_mode, status.st_uid, status.st_gid]
            if stat.S_ISREG(status.st_mode):
                facts += [status.st_size, status.st_mtime_ns]
            link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
            seen.update(f"{path}/{name}\0{facts}\0{link}\0".encode(errors="surrogateescape"))
    top = stat.S_IMODE(os.fstat(tree).st_mode)
    return f"{transfer.uid} {transfer.gid} {transfer.mode} {top:o} {seen.hexdigest()}"


def _raise(error: OSError) -> None:
    raise error
