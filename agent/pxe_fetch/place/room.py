"""Whether what a run is to bring fits, asked before the first byte comes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.errors import NoRoomError
from pxe_fetch.plan import Order, part_of

IN_MEMORY = frozenset(("tmpfs", "ramfs", "rootfs"))
KiB = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a destination's bytes go."""

    directory: Path  # that exists
    device: int
    free: int  # bytes of its file system
    in_memory: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo: where, of which type, and an overlay's upper directory."""

    point: str
    kind: str
    upper: str | None


def preflight(orders: Iterable[Order]) -> dict[str, NoRoomError]:
    """The optional artifacts (by name) that do not fit beside the required ones, each with the error that says why.

    Only declared sizes count, less what an earlier run has brought already. Raises NoRoomError when the required
    artifacts alone do not fit.
    """
    mounts = read_mounts()
    memory = memory_available()
    places: dict[Path, Place] = {}
    left: dict[int, int] = {}  # bytes that remain, by device
    refused: dict[str, NoRoomError] = {}
    for order in sorted(
        orders, key=lambda order: not order.required
    ):  # stable: in each half as the configuration has it
        need = _need(order)
        if not need:
            continue
        place = places.get(order.dest.parent)
        if place is None:
            place = places[order.dest.parent] = _place_of(order.dest.parent, mounts)
        free = left.setdefault(place.device, place.free)
        if place.in_memory and memory is not None:
            free = min(free, memory)
        if need > free:
            what = "memory" if place.in_memory else "the disk"
            message = f"{order.name} needs {need} bytes below {place.directory}, and {what} there has {free} left"
            if order.required:
                raise NoRoomError(message)
            refused[order.name] = NoRoomError(message)
            continue
        left[place.device] -= need
        if place.in_memory and memory is not None:
            memory -= need
    return refused


def available(directory: Path) -> int:
    """The bytes that may be written below `directory`: its file system's, and memory where that is what it is."""
    free = _free(directory)
    memory = memory_available()
    if memory is not None and lies_in_memory(str(directory), read_mounts()):
        return min(free, memory)
    return free


def lies_in_memory(directory: str, mounts: list[Mount]) -> bool:
    """Whether files below `directory` take memory: tmpfs, ramfs, or an overlay whose upper directory is on one."""
    mount = _mount_of(os.path.realpath(directory), mounts)
    if mount is None:
        return False
    if mount.upper is not None:
        # A live system's overlay has its upper directory in /run (dracut dmsquash-live); a container's cannot be seen.
        upper = _mount_of(mount.upper, mounts) if os.path.isdir(mount.upper) else None  # noqa: PTH112
        return upper is not None and upper.kind in IN_MEMORY
    return mount.kind in IN_MEMORY


def read_mounts(table: Path = Path("/proc/self/mountinfo")) -> list[Mount]:
    """The mounts of this process, in mount order (proc_pid_mountinfo(5)); empty where /proc is missing."""
    try:
        text = table.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, rest = before.split(), after.split(" ")
        if len(words) < 5 or len(rest) < 3:  # noqa: PLR2004  its columns
            continue
        options = dict(option.partition("=")[::2] for option in rest[2].split(","))
        upper = _unescape(options["upperdir"]) if rest[0] == "overlay" and "upperdir" in options else None
        mounts.append(Mount(point=_unescape(words[4]), kind=rest[0], upper=upper))
    return mounts


def _mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that `path` lies on: the longest mount point, and of equal ones the last, which hides the others."""
    best: Mount | None = None
    for mount in mounts:
        point = mount.point.rstrip("/") + "/"
        if (path + "/").startswith(point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _need(order: Order) -> int:
    """The bytes that `order` still takes; 0 when no size is declared, or a file of that size stands there already."""
    if order.size is None:
        return 0
    try:
        if order.dest.lstat().st_size == order.size:
            return 0  # most likely kept; if not, a full disk is found out later
    except OSError:
        pass
    try:
        have = part_of(order.dest).lstat().st_blocks * 512
    except OSError:
        have = 0
    return max(order.size - have, 0)


def _place_of(directory: Path, mounts: list[Mount]) -> Place:
    while not os.path.isdir(directory) and directory != directory.parent:  # noqa: PTH112  Path.is_dir raises
        directory = directory.parent
    return Place(
        directory=directory,
        device=directory.stat().st_dev,
        free=_free(directory),
        in_memory=lies_in_memory(str(directory), mounts),
    )


def _free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def memory_available() -> int | None:
    """MemAvailable of /proc/meminfo in bytes, None where it is not told."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * KiB
    except (OSError, ValueError, IndexError):
        return None
    return None


def _unescape(text: str) -> str:
    """A path of mountinfo, where blank, tab, newline and backslash are octal escapes."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text
