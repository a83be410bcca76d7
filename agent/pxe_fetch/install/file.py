"""Install a verified file, all or nothing: its destination is absent, what it was before, or complete and verified."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from pxe_fetch.errors import CannotCreateError, DiskError, FetchError, NoRoomError, PolicyError
from pxe_fetch.plan import Transfer

DEFAULT_MODE = 0o644
DIRECTORY_MODE = 0o755


def make_parents(dest: Path) -> None:
    """Create the directory of `dest` and its missing parents, with DIRECTORY_MODE. Raises FetchError."""
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
            continue  # another artifact's thread was faster
        except OSError as error:
            raise translate_error(error, f"cannot create the directory {directory}") from None
    if not dest.parent.is_dir():
        raise CannotCreateError(f"cannot create {dest}: {dest.parent} is not a directory")


def is_current(transfer: Transfer) -> bool:
    """Whether the destination already is a file with the right digest; if so, set its mode and owner as configured.

    Reads the whole file. Raises FetchError if the owner cannot be set, or if the destination is a directory: no file
    replaces it, so nothing is fetched.
    """
    try:
        descriptor = os.open(transfer.dest, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise CannotCreateError(f"{transfer.dest} is a directory, which no file replaces")
        if not stat.S_ISREG(status.st_mode) or (transfer.size is not None and status.st_size != transfer.size):
            return False
        try:
            if not _has_digest(file, transfer):
                return False
        except OSError:
            return False
        set_owner_and_mode(descriptor, transfer)
    return True


def install(transfer: Transfer) -> None:
    """Turn the verified part file into the destination: set owner and mode, fsync, rename, fsync the directory.

    A symbolic link at the destination is replaced, not followed. Raises FetchError; the part file then stays, except
    after NoRoomError.
    """
    try:
        descriptor = os.open(transfer.part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise translate_error(error, f"cannot open {transfer.part}") from None
    try:
        set_owner_and_mode(descriptor, transfer)
        os.fsync(descriptor)
    except OSError as error:
        cause = translate_error(error, f"cannot write {transfer.part} to disk")
        if isinstance(cause, NoRoomError):  # a file system with delayed allocation finds out this late
            transfer.part.unlink(missing_ok=True)
        raise cause from None
    finally:
        os.close(descriptor)
    try:
        transfer.part.replace(transfer.dest)
        sync_directory(transfer.dest.parent)
    except OSError as error:
        raise translate_error(error, f"cannot install {transfer.dest}") from None


def set_owner_and_mode(descriptor: int, transfer: Transfer) -> None:
    """Set owner and mode of the open file as configured, unless they are so already. Raises FetchError."""
    status = os.fstat(descriptor)
    uid = status.st_uid if transfer.uid is None else transfer.uid
    gid = status.st_gid if transfer.gid is None else transfer.gid
    mode = DEFAULT_MODE if transfer.mode is None else transfer.mode
    try:
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, uid, gid)  # before the mode, since it clears the set-user-ID bit (chown(2))
        elif stat.S_IMODE(status.st_mode) == mode:
            return
        os.fchmod(descriptor, mode)
    except OSError as error:
        message = f"cannot give {transfer.dest} the owner {uid}:{gid} and the mode {mode:04o}: {error.strerror}"
        raise CannotCreateError(message) from None


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power failure (fsync(2)). Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def installing(transfer: Transfer) -> Iterator[None]:
    """Within this context `transfer` is unpacked: an OSError becomes a FetchError.

    The part file is removed if another try would fail too, or if it is what takes the space.
    """
    try:
        try:
            yield
        except OSError as error:
            raise translate_error(error, f"cannot install {transfer.dest}") from None
    except (PolicyError, NoRoomError):
        transfer.part.unlink(missing_ok=True)
        raise


def write_record(record: Path, text: Callable[[], str]) -> None:
    """Write `text` to the file `record`, which says what was installed beside it.

    Without it, if that fails or the run is killed before, a later run installs the artifact again.
    """
    with suppress(OSError):
        record.unlink(missing_ok=True)
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(text())


def translate_error(error: OSError, what: str) -> FetchError:
    """The FetchError for `error` of the file system; `what` begins its message."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM}:
        return NoRoomError(message)
    if error.errno == errno.EIO:
        return DiskError(message)
    return CannotCreateError(message)


def _has_digest(file: FileIO, transfer: Transfer) -> bool:
    """Whether the open file has the digest of the whole, or if there is none, those of the chunks. Raises OSError."""
    if transfer.digest:
        return hashlib.file_digest(file, transfer.digest.algorithm).hexdigest() == transfer.digest.hex
    return transfer.chunk_map is not None and transfer.chunk_map.matches(file.fileno())
