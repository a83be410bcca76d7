"""Install a tar archive as a directory tree: unpack it beside the destination, then swap the two."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tarfile
from io import BufferedReader
from pathlib import Path

from pxe_fetch.contract.paths import STAGING_SUFFIX
from pxe_fetch.contract.tar import MOST_MEMBERS, TarReader
from pxe_fetch.errors import CannotCreateError, NoRoomError, PolicyError
from pxe_fetch.humanize import amount
from pxe_fetch.install.compression import LONGEST_MAGIC, Content, kind_of
from pxe_fetch.install.disk_space import available, is_in_memory, read_mounts
from pxe_fetch.install.file import DIRECTORY_MODE, installing, sync_directory, write_record
from pxe_fetch.install.unpack import Unpacker
from pxe_fetch.plan import Transfer, beside

try:
    # The C module under ctypes. Importing ctypes itself creates a callback, which takes executable memory (Python
    # 3.11); the unit forbids that (MemoryDenyWriteExecute=).
    import _ctypes
except ImportError:  # a Python without libffi
    _ctypes = None  # type: ignore[assignment]

_BLOCK = 256 * 1024  # bytes of the archive read at a time
FORMER_SUFFIX = ".pxe-fetch-former"
RECORD_SUFFIX = ".pxe-fetch-tree"  # beside the tree: the archive's identity, and a digest of the tree's metadata
_AT_FDCWD = -100  # <fcntl.h>: relative to the working directory
_RENAME_EXCHANGE = 2  # <linux/fs.h>


def is_current(transfer: Transfer) -> bool:
    """Whether the destination is the tree that an earlier run made of this archive, unchanged.

    The record beside it has the archive's digest, and the names, types, modes, owners, sizes and times of everything
    unpacked. The content is not read again. Raises FetchError if the destination is not a directory: no tree replaces
    it, so nothing is fetched.
    """
    if os.path.lexists(transfer.dest) and not _is_directory(transfer.dest):
        raise CannotCreateError(f"{transfer.dest} exists and is not a directory, and no tree replaces it")
    try:
        record = beside(transfer.dest, RECORD_SUFFIX).read_text(encoding="ascii")
        is_ours = record == _record(transfer, tree=transfer.dest)
        if is_ours:
            _clear(transfer)
    except (OSError, UnicodeDecodeError):
        return False
    return is_ours


def install(transfer: Transfer) -> None:
    """Turn the content of the verified archive into the destination, then remove the archive.

    Members get the configured owner (else the agent's); the directory itself gets the configured mode (else 0755).
    Set-id bits and write permission for group and others are dropped (as by tarfile's `data` filter), and the owner can
    write all of it. Raises FetchError; the destination is then unchanged.
    """
    staging = beside(transfer.dest, STAGING_SUFFIX)
    record = beside(transfer.dest, RECORD_SUFFIX)
    try:
        with installing(transfer):
            _clear(transfer)
            staging.mkdir(mode=0o700)
            _fill(staging, transfer)
            _set_owner_and_mode(staging, transfer)
            if not is_in_memory(str(staging), read_mounts()):
                os.sync()  # else a power cut may leave empty files under the right names
            _swap(staging, transfer.dest)
            write_record(record, lambda: _record(transfer, tree=transfer.dest))
            transfer.part.unlink(missing_ok=True)
            sync_directory(transfer.dest.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _clear(transfer: Transfer) -> None:
    """Remove what a run that was killed left beside the destination. Raises OSError."""
    for suffix in (STAGING_SUFFIX, FORMER_SUFFIX):
        _remove(beside(transfer.dest, suffix))


def _fill(staging: Path, transfer: Transfer) -> None:
    free = available(staging)
    members = size = 0
    try:
        with transfer.part.open("rb") as packed:
            archive, unpacker = TarReader(_uncompressed(packed)), Unpacker(staging)
            for member in archive:
                members += 1
                size += member.size if member.isreg() else 0
                if members > MOST_MEMBERS:
                    raise PolicyError(f"the archive has more than {MOST_MEMBERS} members")
                if size > free:
                    raise NoRoomError(f"the unpacked archive needs more than the {amount(int(free))} available")
                unpacker.add(archive, member)
    except (tarfile.TarError, EOFError, ValueError, ArithmeticError) as error:
        # The digest is right, so this is the configured archive, and another attempt would not help.
        raise PolicyError(f"the fetched file is not a complete tar archive: {error}") from None


def _uncompressed(packed: BufferedReader) -> BufferedReader:
    """The file `packed`, decompressed if it is compressed."""
    is_compressed = kind_of(packed.peek(LONGEST_MAGIC)[:LONGEST_MAGIC]) is not None
    return BufferedReader(Content(packed), _BLOCK) if is_compressed else packed


def _set_owner_and_mode(staging: Path, transfer: Transfer) -> None:
    mode = DIRECTORY_MODE if transfer.mode is None else transfer.mode
    if transfer.uid is not None or transfer.gid is not None:
        uid = -1 if transfer.uid is None else transfer.uid
        gid = -1 if transfer.gid is None else transfer.gid
        try:
            for folder, folders, files in os.walk(staging):
                for name in (".", *folders, *files):
                    os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)  # noqa: PTH118
        except OSError as error:
            raise CannotCreateError(f"cannot give {transfer.dest} the owner {uid}:{gid}: {error.strerror}") from None
    staging.chmod(mode)


def _swap(staging: Path, dest: Path) -> None:
    """Replace whatever is at `dest` by the directory `staging`. Raises OSError or FetchError."""
    try:
        os.rename(staging, dest)  # noqa: PTH104  missing, or an empty directory
    except OSError:
        if not os.path.lexists(dest):
            raise
    else:
        return
    if _exchange(staging, dest):
        _remove(staging)
        return
    # For a moment the destination is absent, which is allowed too. If the run is killed now, the next unpacks again.
    former = beside(dest, FORMER_SUFFIX)
    try:
        os.rename(dest, former)  # noqa: PTH104
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # overlayfs does not rename a directory of its lower layer, and emptying it would not be all or nothing.
        raise CannotCreateError(
            f"{dest} is a directory of the image itself, which cannot be replaced as a whole; choose another dest, or "
            "remove or empty the directory in the image"
        ) from None
    try:
        os.rename(staging, dest)  # noqa: PTH104
    except OSError:
        os.rename(former, dest)  # noqa: PTH104
        raise
    _remove(former)


def _exchange(first: Path, second: Path) -> bool:
    """Swap `first` and `second` in one step (renameat2(2), RENAME_EXCHANGE); False, with nothing changed, if it cannot.

    It needs support by the C library (glibc 2.28), the kernel and the file system: ext4, xfs, btrfs and tmpfs have it,
    overlayfs does not for directories of its lower layer.
    """
    try:
        # dlopen(3): None stands for the program itself, which has the C library in it.
        renameat2 = _ctypes.dlsym(_ctypes.dlopen(None, 0), "renameat2")  # type: ignore[arg-type]
        arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
        failed: int = _ctypes.call_function(renameat2, arguments)
    except (AttributeError, OSError):
        return False
    return failed == 0


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(tree: Path) -> None:
    if tree.is_symlink() or tree.is_file():
        tree.unlink()
    elif tree.exists():
        shutil.rmtree(tree)


def _record(transfer: Transfer, *, tree: Path) -> str:
    """The archive's identity, the configured owner and mode, and a digest of the tree's metadata. Raises OSError."""
    seen = hashlib.sha256()
    for folder, folders, files in os.walk(tree, onerror=_raise):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)  # noqa: PTH118
            status = os.lstat(path)
            facts = [status.st_mode, status.st_uid, status.st_gid]
            if stat.S_ISREG(status.st_mode):
                facts += [status.st_size, status.st_mtime_ns]
            link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115
            seen.update(f"{os.path.relpath(path, tree)}\0{facts}\0{link}\0".encode(errors="surrogateescape"))
    top = tree.lstat()
    if not stat.S_ISDIR(top.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    mode = DIRECTORY_MODE if transfer.mode is None else transfer.mode
    return (
        f"{transfer.identity} {transfer.uid} {transfer.gid} {mode:o} {stat.S_IMODE(top.st_mode):o} {seen.hexdigest()}\n"
    )


def _raise(error: OSError) -> None:
    raise error
