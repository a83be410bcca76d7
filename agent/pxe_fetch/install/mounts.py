"""What a directory is mounted on: a disk, or memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MEMORY_TYPES = frozenset(("tmpfs", "ramfs", "rootfs"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    point: str
    fs_type: str
    upper_dir: str | None  # of an overlay


def is_in_memory(directory: str, mounts: list[Mount]) -> bool:
    """Whether files below `directory` take memory: tmpfs, ramfs, or an overlay whose upper directory is on one."""
    mount = _mount_of(os.path.realpath(directory), mounts)
    if mount is not None and mount.upper_dir is not None:
        upper_dir = overlay_upper_dir(directory, mounts)
        mount = _mount_of(upper_dir, mounts) if upper_dir else None
    return mount is not None and mount.fs_type in MEMORY_TYPES


def overlay_upper_dir(directory: str, mounts: list[Mount]) -> str | None:
    """The upper directory of the overlay that `directory` is on; None if it is on none, or that cannot be seen.

    A live system's overlay has its upper directory in /run (dracut's dmsquash-live); a container's cannot be seen.
    """
    mount = _mount_of(os.path.realpath(directory), mounts)
    if mount is None or mount.upper_dir is None:
        return None
    return mount.upper_dir if os.path.isdir(mount.upper_dir) else None  # noqa: PTH112  Path.is_dir may raise


def read_mounts(table: Path = Path("/proc/self/mountinfo")) -> list[Mount]:
    """The mounts of this process, in mount order; [] if /proc is missing."""
    try:
        text = table.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")  # between them: any number of optional fields
        words, rest = before.split(), after.split(" ")
        if len(words) < 5 or len(rest) < 3:  # noqa: PLR2004  number of columns
            continue
        options = dict(option.partition("=")[::2] for option in rest[2].split(","))
        upper_dir = _unescape(options["upperdir"]) if rest[0] == "overlay" and "upperdir" in options else None
        mounts.append(Mount(point=_unescape(words[4]), fs_type=rest[0], upper_dir=upper_dir))
    return mounts


def _mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that `path` is on: the longest mount point; of equal ones the last, which hides the others."""
    best: Mount | None = None
    for mount in mounts:
        point = mount.point.rstrip("/") + "/"
        if (path + "/").startswith(point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _unescape(text: str) -> str:
    """A path of mountinfo, in which blank, tab, newline and backslash are octal escapes."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text
