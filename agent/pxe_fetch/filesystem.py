"""The node's file systems: where artifacts may go, folders opened without links, mounts, free space, errors."""

from __future__ import annotations

import errno
import math
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pxe_fetch.contract.paths import LONGEST_PATH, PROTECTED, Places, parents
from pxe_fetch.contract.quantity import amount
from pxe_fetch.errors import CannotCreateError, DiskError, FetchError, NoRoomError, PolicyError

MEMORY_TYPES = frozenset(("tmpfs", "ramfs", "rootfs"))
FOLDER_MODE = 0o755  # the run has the umask 022: a chmod(2) after mkdir(2) could hit what was put in its place
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
NOT_A_FOLDER = frozenset((errno.ENOTDIR, errno.ELOOP))  # what opening a link with these flags raises
_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # needs no permission to list it (open(2))
_TRIES = 100
# A device, the root in it, a mount point, a type, options of the file system (proc_pid_mountinfo(5)); any number of
# fields before the ` - `.
_MOUNT = re.compile(r"^(?:\S+ ){2}(\S+) (\S+) (\S+) .*? - (\S+) \S* (\S+)$", re.MULTILINE)
_UPPER_DIR = re.compile(r"(?:^|,)upperdir=([^,]*)")
_MiB = 1024 * 1024


class Folder:
    """A folder held open. What is done at `fd`, by names in it, is done there, wherever its path leads meanwhile."""

    def __init__(self, path: str, *, dest: str = "", roots: AllowedRoots | None = None) -> None:
        """Open the absolute `path`, and create what is missing of it. No component may be a link.

        Raises OSError, with an `errno` in NOT_A_FOLDER where a component is a link or another file; PolicyError where
        a protected place is mounted on the way, and `dest` is in it; CannotCreateError where that path is too long.
        """
        if (length := len(os.fsencode(f"{path}/{dest}"))) > LONGEST_PATH:  # it could be made, and never be named
            raise CannotCreateError(f"its path has {length} bytes, and a path has at most {LONGEST_PATH}: shorten dest")
        self.path = path
        self.fd = os.open("/", _PASS)
        names = path.strip("/").split("/")
        for depth, name in enumerate(names, 1):
            self._enter(name or ".", _PASS if depth < len(names) else OPEN_FOLDER)
            if roots and roots.is_protected(self._identity, "/".join(["", *names[depth:], dest])):
                self.close()
                raise PolicyError(
                    f"{path}/{dest} is refused: it leads to a place that belongs to the system, mounted there once more"
                )
        # Of files that are trusted. NFS may give those of root to nobody, vfat all to one user: a file that was created
        # here shows whom, and its owner is added.
        self.owners = {os.geteuid(), 0}

    def _enter(self, name: str, flags: int) -> None:
        """Make this the folder `name` in it, which is created if it is missing."""
        above = self.fd
        try:
            self.fd = os.open(name, flags, dir_fd=above)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another artifact's thread was faster
                os.mkdir(name, FOLDER_MODE, dir_fd=above)
            self.fd = os.open(name, flags, dir_fd=above)
        finally:
            os.close(above)
        self._identity = _identity(self.fd)

    def close(self) -> None:
        os.close(self.fd)

    def check_in_place(self) -> None:
        """Raise DiskError unless the path, wherever links may lead it now, names this folder."""
        if _identity(self.path) != self._identity:
            raise DiskError(f"{self.path} was moved or replaced by another program during the run")

    def is_ours(self, status: os.stat_result) -> bool:
        """Whether nobody but this user and root can have a hand in an open file: its owner, and no second hard link."""
        return status.st_uid in self.owners and status.st_nlink <= 1

    def identity(self, name: str) -> tuple[int, int] | None:
        """Device and inode of `name`, not followed if it is a link; None if it is missing."""
        return _identity(name, folder=self.fd)

    def holds(self, name: str, status: os.stat_result) -> bool:
        """Whether `name` is the open file that has this `status`, not another or a link. Raises OSError."""
        try:
            return os.path.samestat(os.stat(name, dir_fd=self.fd, follow_symlinks=False), status)
        except FileNotFoundError:
            return False

    def remove(self, name: str) -> None:
        """Remove the file, link or tree `name`, if there is one, without following a link. Raises OSError.

        Folders are moved up before they are emptied, so that any depth takes neither recursion (shutil.rmtree of Python
        3.11) nor a descriptor for each level; and no mount point can be moved, so what is mounted there is not touched.
        """
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._remove_tree(name)

    def _remove_tree(self, name: str) -> None:
        with closing_fd(os.open(name, OPEN_FOLDER, dir_fd=self.fd)) as top:
            left = ["."]
            while left:
                one = left.pop()
                with closing_fd(os.open(one, OPEN_FOLDER, dir_fd=top)) as fd, os.scandir(fd) as entries:
                    for child, is_folder in [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]:
                        if not is_folder:
                            os.unlink(child, dir_fd=fd)
                            continue
                        left.append(f".{os.urandom(8).hex()}")
                        os.rename(child, left[-1], src_dir_fd=fd, dst_dir_fd=top)
                if one != ".":
                    os.rmdir(one, dir_fd=top)
        os.rmdir(name, dir_fd=self.fd)


class AllowedRoots:
    """`allowed_roots` of the configuration, with the links in their own paths resolved once, at the start.

    Links below them are resolved as well, but only a path without links is ever opened: one that is put in place after
    the check is not followed.
    """

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._listed = ", ".join(roots)
        self._roots = tuple(f"{root.rstrip('/')}/" for root in roots)
        self._real_roots = tuple(f"{os.path.realpath(root).rstrip('/')}/" for root in roots)
        # What is written to an overlay's upper directory appears where the overlay is mounted: on a live system, at /.
        uppers = filter(None, (mount.upper_dir for mount in read_mounts()))
        places = (*PROTECTED, *filter(os.path.isdir, uppers))
        self._protected = Places({*places, *map(os.path.realpath, places)})
        # Of a bind mount of a protected place, or of a folder around one, the path says nothing.
        self._folders = defaultdict[object, set[str]](set)
        for folder in {"", *places, *chain.from_iterable(map(parents, places))}:
            self._folders[_identity(folder or "/")].add(folder)
        self._resolved: dict[str, str] = {}  # folder as configured -> without links, when it was last looked at

    def check(self, dest: Path) -> str:
        """The path of the folder of `dest` with all links resolved now; missing parents count as written.

        Raises PolicyError unless `dest` is below a root, both as written and resolved, and in no protected place.
        """
        text = str(dest)
        if not text.startswith(self._roots):
            raise PolicyError(f"{dest} is not below any of allowed_roots ({self._listed})")
        parent, _, name = text.rpartition("/")
        folder = self._resolved.get(parent) or real_path(parent or "/")
        real = f"{folder.rstrip('/')}/{name}"
        if not real.startswith(self._real_roots):
            raise PolicyError(f"{dest} leads through a symbolic link to {real}, outside allowed_roots ({self._listed})")
        for path in (text, real):
            if self._protected.of(path):
                raise PolicyError(f"{dest} is refused: {path} belongs to the system, and no artifact goes there")
        self._resolved[parent] = folder
        return folder

    def open(self, dest: Path) -> Folder:
        """The folder of `dest`, opened without following a link; missing parents are created.

        Raises PolicyError as `check` does, and FetchError if it cannot be opened or created.
        """
        for _ in range(2):
            folder = self.check(dest)
            try:
                return Folder(folder, dest=dest.name, roots=self)
            except OSError as error:
                failure = error
            self._resolved.pop(str(dest.parent), None)  # links may have been made since it was looked at
        if failure.errno in NOT_A_FOLDER:
            raise CannotCreateError(f"cannot create {dest}: {folder} is not a directory, or is below a file")
        raise translate_error(failure, f"cannot open or create the directory {folder}", where=folder)

    def is_protected(self, identity: object, rest: str) -> bool:
        """Whether `rest`, below the folder with that device and inode, is protected, wherever it is mounted."""
        return any(self._protected.of(known + rest) for known in self._folders.get(identity, ()))


def _identity(path: str | int, *, folder: int | None = None) -> tuple[int, int] | None:
    """Device and inode, the same wherever it is mounted; None if it is missing. In `folder`, no link is followed."""
    with suppress(OSError):
        status = os.stat(path, dir_fd=folder, follow_symlinks=folder is None)
        return status.st_dev, status.st_ino
    return None


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    """The descriptor `fd`, which is closed at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def real_path(path: str | Path) -> str:
    """`path` with its links resolved. Raises DiskError if they are replaced again and again meanwhile."""
    for _ in range(_TRIES):
        with suppress(OSError):  # one was replaced while it looked
            return os.path.realpath(path)
    raise DiskError(f"{path} is replaced by another program again and again")


class Mount(NamedTuple):
    """One line of /proc/self/mountinfo."""

    point: str
    fs_type: str
    upper_dir: str | None = None  # of an overlay


def read_mounts(table: Path = Path("/proc/self/mountinfo")) -> list[Mount]:
    """The mounts of this process, in mount order; [] if /proc is missing.

    Without folders that are mounted onto themselves: systemd does so for ReadOnlyPaths= and the like in this process's
    namespace alone, so that elsewhere on the node `mount -o remount` does not know them.
    """
    text, mounts = "", []
    seen: set[tuple[str, str, str]] = set()
    with suppress(OSError):
        text = table.read_text(encoding="utf-8", errors="surrogateescape")
    for device, root, point, fs_type, options in _MOUNT.findall(text):
        if _is_onto_itself(device, root, point, seen=seen):
            continue
        seen.add((device, root.rstrip("/"), point.rstrip("/")))
        upper = _UPPER_DIR.search(options) if fs_type == "overlay" else None
        mounts.append(Mount(_unescape(point), fs_type, _unescape(upper[1]) if upper else None))
    return mounts


def _is_onto_itself(device: str, root: str, point: str, *, seen: Container[tuple[str, str, str]]) -> bool:
    """Whether what is at `root` of the file system was at `point` before, as part of a mount around it."""
    while root != "/" and os.path.basename(root) == os.path.basename(point):  # noqa: PTH119
        root, point = os.path.dirname(root), os.path.dirname(point)  # noqa: PTH120
        if (device, root.rstrip("/"), point.rstrip("/")) in seen:
            return True
    return False


def _unescape(text: str) -> str:
    """A path of mountinfo, in which blank, tab, newline and backslash are octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), text)


def mount_of(path: str, mounts: list[Mount]) -> Mount:
    """The mount that `path` is on: the longest mount point; of equal ones the last, which hides the others."""
    real = real_path(path) + "/"
    best = Mount(point="/", fs_type="unknown file system")
    for mount in mounts:
        if real.startswith(mount.point.rstrip("/") + "/") and len(mount.point) >= len(best.point):
            best = mount
    return best


def storage_of(directory: str, mounts: list[Mount]) -> str:
    """The directory whose file system takes the bytes written to `directory`: of an overlay, its upper directory.

    A live system's overlay has its upper directory in /run (dracut's dmsquash-live); a container's cannot be seen.
    """
    upper_dir = mount_of(directory, mounts).upper_dir
    return upper_dir if upper_dir and os.path.isdir(upper_dir) else directory  # noqa: PTH112  Path.is_dir may raise


def is_in_memory(directory: str, mounts: list[Mount] | None = None) -> bool:
    """Whether files below `directory` take memory: tmpfs, ramfs, or an overlay whose upper directory is on one."""
    mounts = read_mounts() if mounts is None else mounts
    return mount_of(storage_of(directory, mounts), mounts).fs_type in MEMORY_TYPES


def free_bytes(directory: str | int) -> float:
    """The bytes free to any user (statvfs(3)); infinite if there is no limit (ramfs), or the directory is gone."""
    with suppress(OSError):
        status = os.statvfs(directory)
        return status.f_bavail * status.f_frsize if status.f_blocks else math.inf
    return math.inf


def no_room(directory: str, *, wanted: int = 0, inodes: int = 0) -> str:
    """What file system `directory` is on, how full it is, and how `wanted` more bytes or `inodes` may fit."""
    mounts = read_mounts()
    while not os.path.isdir(directory):  # noqa: PTH112
        directory = os.path.dirname(directory)  # noqa: PTH120
    storage = storage_of(directory, mounts)
    mount, status = mount_of(storage, mounts), os.statvfs(storage)
    size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    place = f"{mount.point} ({mount.fs_type})"
    if storage != directory:
        place = f"{directory} is an overlay on {place}, which"
    if status.f_files and status.f_favail <= inodes:
        needed = max(2 * status.f_files, status.f_files + inodes)
        grow = f"`mount -o remount,nr_inodes={needed} {mount.point}`, or " if mount.fs_type == "tmpfs" else ""
        return f"{place} has {status.f_favail} of {status.f_files} inodes free (`df -i`): {grow}remove files"
    room = f"{place} has {amount(free)} of {amount(size)} free"
    if mount.fs_type not in {"tmpfs", "rootfs"}:  # the latter is a tmpfs too, if it has a limit
        return f"{room}: remove files, or choose a dest on a larger file system"
    needed = math.ceil((size - free + max(wanted, free + _MiB)) / _MiB)
    device = "rootfs " if mount.fs_type == "rootfs" else ""  # fstab may have another one for /
    grow = f"`mount -o remount,size={needed}M {device}{mount.point}` enlarges it"
    if mount.point == "/run" or storage_of("/", mounts).startswith(mount.point):
        grow += " now, and `live_space` in the packed fetch.yaml at each boot"
    return f"{room}: {grow}; or choose a dest on a disk"


def translate_error(error: OSError, what: str, *, where: str | Path) -> FetchError:  # noqa: C901  a table of causes
    """The FetchError for `error` of the file system in the directory `where`: `what` failed, why, and the remedy."""
    place = f"{(mount := mount_of(str(where), read_mounts())).point} ({mount.fs_type})"
    kind: type[FetchError] = CannotCreateError
    match error.errno:
        case errno.ENOSPC:
            kind, remedy = NoRoomError, no_room(str(where))
        case errno.EDQUOT:
            kind, remedy = (NoRoomError, f"uid {os.geteuid()} has no quota left on {place}: raise it with setquota(8)")
        case errno.EFBIG:
            kind, remedy = NoRoomError, f"{place} or `ulimit -f` allows no file of this size: choose another dest"
        case errno.ENOMEM:
            kind, remedy = NoRoomError, "the node has too little memory"
        case errno.EMFILE | errno.ENFILE:
            kind, remedy = DiskError, "raise LimitNOFILE=, or lower `parallel`"
        case errno.ENOENT:  # all happens in open folders
            kind, remedy = DiskError, "another program moved or removed the directory during the run"
        case errno.EBUSY:
            remedy = "something is mounted there: unmount it, or choose another dest"
        case errno.EIO:
            kind, remedy = DiskError, f"the device of {place} fails; see `dmesg`"
        case errno.EROFS:
            remedy = f"{place} is mounted read-only, or the unit's ReadWritePaths= (allowed_roots when packed) lack it"
        case errno.EACCES | errno.EPERM:
            remedy = f"uid {os.geteuid()} may not do this on {place}, or the unit's sandbox forbids it"
        case errno.ENAMETOOLONG:
            remedy = "a name has at most 255 bytes, a path 4095: shorten dest, or the names in the archive"
        case _:
            remedy = ""
    return kind(f"{what}: {error.strerror or error}{remedy and f' ({remedy})'}")
