"""Convert Boot Loader Specification entries to GRUB menu entries, because GRUB cannot list their folder over TFTP.

Sources: the Boot Loader Specification, "Type #1" (keys; the file name is the entry's id); commands/blscfg.c of the GRUB
in Fedora, RHEL and Azure Linux 4 (the folders it searches, the order of the entries, that `options` is GRUB script).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key

from pxe_pack.image.grub.commands import plain_path
from pxe_pack.image.grub.expression import leading_number
from pxe_pack.image.grub.files import Files, UnsuitableGrubConfigError
from pxe_pack.image.grub.limits import Usage
from pxe_pack.image.grub.words import quoted, unquoted

FOLDERS = ("/boot/loader/entries", "/loader/entries")
SUFFIX = ".conf"

_PARTS = re.compile(r"[0-9]+|[a-zA-Z]+|~|\+", re.ASCII)


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


def menu_entries(words: Sequence[str], *, files: Files, variables: Mapping[str, str], usage: Usage) -> str:
    """The menu entries that `blscfg words` adds, as script: those whose kernel and initrds the image has.

    Raises UnsuitableGrubConfigError if there are none, and GrubLimitError.
    """
    given = [word for word in words if _is_folder(word)] or [variables.get("blsdir", "")]
    folders = [*dict.fromkeys(plain_path(path).rstrip("/") for path in (*given, *FOLDERS) if path)]
    found: list[Entry] = []
    missing = ""
    for folder in folders:
        for name in newest_first(name for name in files.names(folder) if name.endswith(SUFFIX)):
            usage.include()
            text = files.read(f"{folder}/{name}")
            usage.read(text)
            if (one := entry(name, text, variables)) is None:
                continue
            lost = [path for path in (one.linux, *one.initrds) if not files.located(path)]
            if lost:
                missing = missing or f"{folder}/{name} names {lost[0]}, which the image does not have"
            else:
                found.append(one)
        if found:
            break
    if not found:
        raise UnsuitableGrubConfigError(
            "its entries are Boot Loader Specification files (`blscfg`), but none is usable: "
            + (missing or f"there are none in {' or '.join(folders)}")
        )
    chosen = _requested(found, words, default=variables.get("default", ""))
    return "".join(one.menuentry(files.located) for one in chosen) + _defaults(chosen)


def _requested(entries: Sequence[Entry], words: Sequence[str], *, default: str) -> list[Entry]:
    """The entries that `blscfg words` adds to the menu (bls_create_entries): all, the default one, the others, or one.

    `default` is the value of GRUB's variable, which names an id, a title or a number.
    """
    word = words[0] if words else ""
    if word in ("default", "non-default"):
        chosen = [one for at, one in enumerate(entries) if default in (one.identity, one.title, str(at))]
        return chosen if word == "default" else [one for one in entries if one not in chosen]
    if word and not _is_folder(word):
        return [one for one in entries if one.identity == word]
    return list(entries)


def _is_folder(word: str) -> bool:
    """Whether the argument of `blscfg` names a folder with entries."""
    return word.startswith(("(", "/"))


def _defaults(entries: Sequence[Entry]) -> str:
    """Commands that have any GRUB find an entry by its id.

    GRUB as released takes an id that begins with a digit, such as a machine id, for a number (get_entry_number), so
    `default` is replaced by the entry's title where that is not one, too. Empty if there is no such id.
    """
    titles = [one.title for one in entries]
    return "".join(
        f'if [ "${{default}}" = {quoted(one.identity)} ]; then\n'
        f"\tset default={quoted(one.title.replace('>', '>>'))}\nfi\n"
        for one in entries
        if leading_number(one.identity) and not leading_number(one.title) and titles.count(one.title) == 1
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
    """File names of entries in GRUB's menu order (bls_cmp): by descending name, version and release of the kernel."""
    compared = cmp_to_key(_compare)
    return sorted(names, key=lambda name: (compared(name.removesuffix(SUFFIX)), name), reverse=True)


def _compare(one: str, other: str) -> int:
    """Negative if `one` is older, positive if it is newer, 0 if they are of one version."""
    parts = zip(_name_version_release(one), _name_version_release(other), strict=True)
    return next((found for mine, its in parts if (found := _compare_parts(mine, its))), 0)


def _name_version_release(identity: str) -> tuple[str, str, str]:
    """An id taken apart at its last two dashes (split_package_string)."""
    name, *rest = identity.rsplit("-", 2)
    return name, rest[0] if rest else "", rest[1] if len(rest) > 1 else ""


def _compare_parts(one: str, other: str) -> int:
    """Compare versions (vercmp): numbers by value and above letters; `~` sorts before the end, `+` right behind it."""
    ours, theirs = _PARTS.findall(one), _PARTS.findall(other)
    for mine, its in zip(ours, theirs, strict=False):
        if mine == its:
            continue
        for mark in "~+":
            if mark in (mine, its):
                return -1 if mine == mark else 1
        if mine.isdigit() != its.isdigit():
            return 1 if mine.isdigit() else -1
        mine, its = mine.lstrip("0"), its.lstrip("0")  # noqa: PLW2901  as numbers: the longer is the greater
        if mine != its:
            return 1 if ((len(mine), mine) > (len(its), its) if (mine or its).isdigit() else mine > its) else -1
    longer, sign = (ours, 1) if len(ours) > len(theirs) else (theirs, -1)
    if len(ours) == len(theirs):
        return 0
    return -sign if longer[min(len(ours), len(theirs))] == "~" else sign
