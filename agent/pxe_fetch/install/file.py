"""Verified bytes put where they belong, all or nothing: a destination is absent, what it was before, or whole."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import FileIO
from pathlib import Path

from pxe_fetch.errors import CannotCreateError, DiskError, FetchError, NoRoomError
from pxe_fetch.plan import Transfer

DEFAULT_MODE = 0o644
DIRECTORY_MODE = 0o755


def prepare(dest: Path) -> None:
    """Make the directory that `dest` goes into, with what is missing above it (0755). Raises FetchError."""
    directory = dest.parent
    missing = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=DIRECTORY_MODE)
            directory.chmod(DIRECTORY_MODE)  # whatever the umask
        except FileExistsError:
            continue  # another artifact's thread was quicker
        except OSError as error:
            raise explain(error, f"the directory {directory} cannot be made") from None
    if not dest.parent.is_dir():
        raise CannotCreateError(f"{dest} cannot be made: {dest.parent} is not a directory")


def is_right(transfer: Transfer) -> bool:
    """Whether the destination is a file that has the digest already; its mode and owner are then set as wanted.

    Reads the whole file. Raises FetchError when the owner cannot be set, or a directory stands there: nothing that
    comes could take its place, so nothing is fetched.
    """
    try:
        descriptor = os.open(transfer.dest, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise CannotCreateError(f"{transfer.dest} is a directory, so no file is put in its place")
        if not stat.S_ISREG(status.st_mode) or (transfer.size is not None and status.st_size != transfer.size):
            return False
        try:
            if not _has_digest(file, transfer):
                return False
        except OSError:
            return False
        dress(descriptor, transfer)
    return True


def _has_digest(file: FileIO, transfer: Transfer) -> bool:
    """Whether the open file has the bytes of `transfer`: by the digest of the whole, or else by those of its chunks."""
    if transfer.digest:
        return hashlib.file_digest(file, transfer.digest.algorithm).hexdigest() == transfer.digest.hex
    return transfer.chunk_map is not None and transfer.chunk_map.matches(file.fileno())


def place(transfer: Transfer) -> None:
    """Make the verified part file the destination: mode, owner, fsync, rename, fsync of the directory.

    A symbolic link at the destination is replaced, not followed. Raises FetchError; the part file then stays, but for
    NoRoomError.
    """
    try:
        descriptor = os.open(transfer.part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise explain(error, f"{transfer.part} cannot be opened") from None
    try:
        dress(descriptor, transfer)
        os.fsync(descriptor)
    except OSError as error:
        cause = explain(error, f"{transfer.part} cannot be written to disk")
        if isinstance(cause, NoRoomError):  # of a file system that finds it out this late
            transfer.part.unlink(missing_ok=True)
        raise cause from None
    finally:
        os.close(descriptor)
    try:
        os.replace(transfer.part, transfer.dest)  # noqa: PTH105  for each of thousands of files
        sync_directory(transfer.dest.parent)
    except OSError as error:
        raise explain(error, f"{transfer.dest} cannot be put in place") from None


def dress(descriptor: int, transfer: Transfer) -> None:
    """Give the open file its owner and mode, where they are not so already. Raises FetchError."""
    status = os.fstat(descriptor)
    uid = status.st_uid if transfer.uid is None else transfer.uid
    gid = status.st_gid if transfer.gid is None else transfer.gid
    mode = DEFAULT_MODE if transfer.mode is None else transfer.mode
    try:
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, uid, gid)  # before the mode: it clears the setuid bit
        elif stat.S_IMODE(status.st_mode) == mode:
            return
        os.fchmod(descriptor, mode)
    except OSError as error:
        raise CannotCreateError(
            f"{transfer.dest} cannot have the owner {uid}:{gid} and mode {mode:04o}: {error.strerror}"
        ) from None


def sync_directory(directory: Path) -> None:
    """Have the names in `directory` survive a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: OSError, what: str) -> FetchError:
    """The cause that `error` of the file system is, beginning with the sentence `what`."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM}:
        return NoRoomError(message)
    if error.errno == errno.EIO:
        return DiskError(message)
    return CannotCreateError(message)
