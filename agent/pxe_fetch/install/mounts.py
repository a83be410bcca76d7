"""What a folder lies on, as this process's table of mounts tells: a disk or memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

IN_MEMORY = frozenset(("tmpfs", "ramfs", "rootfs"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo: where, of which type, and an overlay's upper directory."""

    point: str
    kind: str
    upper: str | None


def lies_in_memory(directory: str, mounts: list[Mount]) -> bool:
    """Whether files below `directory` take memory: tmpfs, ramfs, or an overlay whose upper directory is on one."""
    mount = _mount_of(os.path.realpath(directory), mounts)
    if mount is None or mount.upper is None:
        return mount is not None and mount.kind in IN_MEMORY
    upper = upper_of(directory, mounts)
    below = _mount_of(upper, mounts) if upper else None
    return below is not None and below.kind in IN_MEMORY


def upper_of(directory: str, mounts: list[Mount]) -> str | None:
    """The upper directory of the overlay that `directory` is on; None where it is on none, or that cannot be seen.

    A live system's has its upper directory in /run (dracut dmsquash-live); a container's cannot be seen.
    """
    mount = _mount_of(os.path.realpath(directory), mounts)
    if mount is None or mount.upper is None:
        return None
    return mount.upper if os.path.isdir(mount.upper) else None  # noqa: PTH112


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


def _unescape(text: str) -> str:
    """A path of mountinfo, where blank, tab, newline and backslash are octal escapes."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text
