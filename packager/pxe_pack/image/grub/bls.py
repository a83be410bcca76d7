"""Convert Boot Loader Specification entries to GRUB menu entries, because GRUB cannot list their folder over TFTP.

Sources: the Boot Loader Specification, "Type #1" (keys; the file name is the entry's id); Fedora's GRUB, blscfg.c (the
folders it searches, the order by descending rpm version, and that `options` is GRUB script).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from pxe_pack.image.grub.script import quoted, unquoted

FOLDERS = ("/boot/loader/entries", "/loader/entries")
SUFFIX = ".conf"

_PARTS = re.compile(r"\d+|[a-zA-Z]+|~|\^")
_RANK = {"~": -2, "": -1, "^": 0}  # rpm's order: 1~rc1, 1, 1^git1, 1a, 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of loader/entries. Paths are as written: relative to the top of its filesystem."""

    identity: str
    title: str
    linux: str
    initrds: tuple[str, ...]
    options: str  # GRUB script: `root=live:… $kernelopts`
    classes: tuple[str, ...]

    def menuentry(self, located: Callable[[str], str]) -> str:
        """The entry as a `menuentry` for grub.cfg, with each path mapped by `located`."""
        classes = "".join(f" --class {quoted(name)}" for name in self.classes)
        initrds = " ".join(quoted(located(path)) for path in self.initrds)
        return (
            f"menuentry {quoted(self.title)}{classes} --id {quoted(self.identity)} {{\n"
            f"\tlinux {' '.join([quoted(located(self.linux)), *self.options.split()])}\n"
            + (f"\tinitrd {initrds}\n" if initrds else "")
            + "}\n"
        )


def entry(name: str, text: str, variables: Mapping[str, str]) -> Entry | None:
    """The entry in the file `name`; None if it does not boot Linux. `variables` are GRUB's, expanded in paths."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#") and value.strip():
            values.setdefault(key, []).append(value.strip())
    if "linux" not in values:
        return None
    identity = name.removesuffix(SUFFIX)
    title = unquoted(" ".join(values.get("title", [identity])[:1]), variables)
    initrds = [unquoted(path, variables) for line in values.get("initrd", []) for path in line.split()]
    return Entry(
        identity=identity,
        title=title,
        linux=unquoted(values["linux"][0], variables),
        initrds=tuple(path for path in initrds if path and not path.startswith("$")),  # $tuned_initrd is usually unset
        options=" ".join(values.get("options", [])),
        classes=tuple(" ".join(values.get("grub_class", [])).split()),
    )


def newest_first(names: Iterable[str]) -> list[str]:
    """File names of entries in GRUB's menu order."""
    return sorted(names, key=_Version, reverse=True)


@dataclass(frozen=True, slots=True)
class _Version:
    """A name in rpm's version order: numbers by value, letters before numbers, `~` before the end of the name."""

    name: str

    def __lt__(self, other: _Version) -> bool:
        ours, theirs = (_PARTS.findall(one.name.removesuffix(SUFFIX)) for one in (self, other))
        for mine, its in zip_longest(ours, theirs, fillvalue=""):
            if mine != its:
                return self._rank(mine) < self._rank(its)
        return self.name < other.name

    @staticmethod
    def _rank(part: str) -> tuple[int, int, str]:
        if part.isdigit():
            return 2, int(part), ""
        return _RANK.get(part, 1), 0, part
