"""The file systems that a root filesystem mounts on itself at boot: those of its fstab, and its enabled mount units.

Sources: fstab(5), systemd.mount(5), systemd-fstab-generator(8), tmpfs(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pxe_pack.image import units
from pxe_pack.image.tree import RootTree, text_file

FSTAB = "etc/fstab"
IN_MEMORY = ("tmpfs", "ramfs")
_DIRECTIVE = re.compile(r"^[ \t]*(What|Where|Type|Options)[ \t]*=(.*)$", re.MULTILINE)
_SIZE = re.compile(r"(\d{1,18})([kKmMgG%]?)")
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A file system that is mounted at `point`, an absolute path, on every node."""

    point: str
    fs_type: str
    options: tuple[str, ...]

    @property
    def in_memory(self) -> bool:
        """Whether its files take memory."""
        return self.fs_type in IN_MEMORY

    @property
    def size(self) -> str:
        """A tmpfs's option `size`; empty if it has none."""
        return next((one.removeprefix("size=") for one in reversed(self.options) if one.startswith("size=")), "")


def mounts(tree: RootTree, enabled: Iterable[str]) -> dict[str, Mount]:
    """The mounts by their points; an entry of fstab wins over a unit in /usr."""
    found = {mount.point: mount for mount in _of_units(tree, enabled)}
    return found | {mount.point: mount for mount in _of_fstab(text_file(tree, FSTAB))}


def size_in_bytes(written: str, *, memory: int) -> int | None:
    """A tmpfs's option `size` in bytes on a node with so many bytes of memory; None if it is not understood."""
    found = _SIZE.fullmatch(written)
    if found is None:
        return None
    return memory * int(found[1]) // 100 if found[2] == "%" else int(found[1]) * _FACTORS[found[2].lower()]


def _of_fstab(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or not fields[1].startswith("/"):  # noqa: PLR2004  columns
            continue
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ()  # noqa: PLR2004
        if "noauto" not in options:
            yield Mount(point=_normal(fields[1].replace("\\040", " ")), fs_type=fields[2], options=options)


def _of_units(tree: RootTree, enabled: Iterable[str]) -> Iterator[Mount]:
    wanted = {name for name in enabled if name.endswith(".mount")}
    for folder in reversed(units.FOLDERS) if wanted else ():  # what comes later wins
        for name in wanted & units.names(tree, folder):
            text = text_file(tree, f"{folder}/{name}")
            given = {key: value.strip() for key, value in _DIRECTIVE.findall(text)}
            if point := given.get("Where"):
                options = given.get("Options", "").replace("%%", "%").split(",")
                yield Mount(point=_normal(point), fs_type=given.get("Type", ""), options=tuple(options))


def _normal(point: str) -> str:
    return point.rstrip("/") or "/"
