"""Install a verified file, all or nothing: its destination is absent, what it was before, or complete and verified.

All of it happens in the destination's open folder, by names in it, and on files that are open: what another process
puts in their place meanwhile is neither read, changed nor followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from pxe_fetch.chunkmap import Check, pieces
from pxe_fetch.contract.quantity import LARGEST
from pxe_fetch.errors import CannotCreateError, DiskError
from pxe_fetch.filesystem import NEW_FILE, Folder, closing_fd
from pxe_fetch.plan import Transfer, beside

DEFAULT_MODE = 0o644
_READ_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LONGEST_RECORD = 1024


def is_current(transfer: Transfer, folder: Folder, check: Check) -> bool:
    """Whether the destination already is a file with the right digest; if so, set its mode and owner as configured.

    Reads the whole file. One that somebody other than root, this user or its configured owner has, or that has a second
    hard link, is not: it is replaced, not changed. Raises FetchError if the owner cannot be set, or if the destination
    is a directory: no file replaces it, so nothing is fetched; and what `check` raises.
    """
    try:
        opened = os.open(transfer.dest.name, _READ_FILE, dir_fd=folder.fd)
    except OSError:
        return False
    with closing_fd(opened) as descriptor:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise CannotCreateError(f"{transfer.dest} is a directory, so no file can replace it")
        if not stat.S_ISREG(status.st_mode) or (transfer.size is not None and status.st_size != transfer.size):
            return False
        if not (folder.is_ours(status) or (status.st_uid == transfer.uid and status.st_nlink == 1)):
            return False
        try:
            if not _has_digest(descriptor, transfer, check):
                return False
        except OSError:
            return False
        set_owner_and_mode(descriptor, transfer)
    return True


def install(transfer: Transfer, folder: Folder, part: int, _check: Check) -> None:
    """Make the open, verified part file the destination. Raises OSError and FetchError; the part file then stays."""
    put_in_place(transfer, folder, part, name=transfer.part.name)


def put_in_place(transfer: Transfer, folder: Folder, descriptor: int, *, name: str) -> None:
    """Turn the open file `name` into the destination: fsync, set owner and mode, rename, fsync the directory.

    A symbolic link at the destination is replaced, not followed. Raises OSError and FetchError.
    """
    os.fsync(descriptor)
    # After the long wait for the disk: a part file that has got another owner is not resumed by a later run.
    status = set_owner_and_mode(descriptor, transfer)
    os.rename(name, transfer.dest.name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    check_installed(transfer, folder, status)
    os.fsync(folder.fd)


def check_installed(transfer: Transfer, folder: Folder, status: os.stat_result) -> None:
    """Raise DiskError if the destination is not the open file or directory that has this `status`."""
    if not folder.holds(transfer.dest.name, status):
        raise DiskError(f"{transfer.dest} was replaced by another program while it was being installed")


def set_owner_and_mode(descriptor: int, transfer: Transfer, *, default: int = DEFAULT_MODE) -> os.stat_result:
    """Set owner and mode of the open file as configured, unless they are so already; its status before.

    Raises FetchError.
    """
    status = os.fstat(descriptor)
    uid = status.st_uid if transfer.uid is None else transfer.uid
    gid = status.st_gid if transfer.gid is None else transfer.gid
    mode = default if transfer.mode is None else transfer.mode
    try:
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.fchown(descriptor, uid, gid)  # before the mode, since it clears the set-user-ID bit (chown(2))
        elif stat.S_IMODE(status.st_mode) == mode:
            return status
        os.fchmod(descriptor, mode)
    except OSError as error:
        message = f"cannot give {transfer.dest} the owner {uid}:{gid} and the mode {mode:04o}: {error.strerror}"
        raise CannotCreateError(message) from None
    return status


def read_record(transfer: Transfer, folder: Folder, suffix: str) -> str:
    """What `write_record` wrote for these bytes; "" if nothing, or somebody else can have written it."""
    try:
        record = os.open(beside(transfer.dest, suffix).name, _READ_FILE, dir_fd=folder.fd)
        with open(record, "rb", buffering=0) as file:  # noqa: PTH123
            status = os.fstat(record)
            is_record = stat.S_ISREG(status.st_mode) and folder.is_ours(status)
            identity, _, text = (file.read(_LONGEST_RECORD) if is_record else b"").decode("ascii").partition(" ")
    except (OSError, UnicodeDecodeError):
        return ""
    return text.strip() if identity == transfer.identity else ""


def write_record(transfer: Transfer, folder: Folder, suffix: str, text: Callable[[], str]) -> None:
    """Write to a file beside the destination which artifact was installed, and `text`, which says how it looks.

    Without it, if that fails or the run is killed before, a later run installs the artifact again.
    """
    record = beside(transfer.dest, suffix).name
    with suppress(OSError):
        folder.remove(record)
        with open(os.open(record, NEW_FILE, 0o600, dir_fd=folder.fd), "w", encoding="ascii") as stream:  # noqa: PTH123
            stream.write(f"{transfer.identity} {text()}\n")


def _has_digest(descriptor: int, transfer: Transfer, check: Check) -> bool:
    """Whether the open file has the digest of the whole, or if there is none, those of the chunks. Raises OSError."""
    if transfer.digest is None:
        return transfer.chunk_map is not None and transfer.chunk_map.matches(descriptor, check=check)
    found = hashlib.new(transfer.digest.algorithm)
    for piece in pieces(descriptor, start=0, end=LARGEST):
        check()
        found.update(piece)
    return found.hexdigest() == transfer.digest.hex
