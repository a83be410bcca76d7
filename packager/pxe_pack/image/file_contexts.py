"""SELinux file contexts: the label that the policy in an image assigns to a path.

Sources: selabel_file(5); libselinux's src/label_file.c and label_support.c. A specification without metacharacters
beats every regular expression; within each kind the last match wins, so `.local` beats `.homedirs`, which beats the
policy's own file. (libselinux 3.8 sorted expressions by the length of their fixed prefixes; later versions use file
order again. Policies list them sorted, so both give the same result.) First, substitutions replace a path's prefix:
`.subs`, then `.subs_dist`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pxe_fetch.contract.problem import Problem
from pxe_pack.image.limits import Limit, Usage
from pxe_pack.image.linear_pattern import LinearPattern, PatternError, compile_pattern
from pxe_pack.image.tree import RootTree
from pxe_pack.tools import InputError

CONFIG: Final = "etc/selinux/config"  # selinux_config(5)
NO_LABEL: Final = "<<none>>"

_META: Final = ".^$?*+|[({"
_TYPES: Final = {
    "--": stat.S_IFREG,
    "-d": stat.S_IFDIR,
    "-l": stat.S_IFLNK,
    "-b": stat.S_IFBLK,
    "-c": stat.S_IFCHR,
    "-p": stat.S_IFIFO,
    "-s": stat.S_IFSOCK,
}


@dataclass(frozen=True, kw_only=True, slots=False)
class Specification:
    """One line: a regular expression that must match the whole path, a file type or any, and the context."""

    pattern: str
    kind: int  # S_IFMT of a mode; 0: any
    context: str
    place: str  # file and line, for messages

    @cached_property
    def literal(self) -> str | None:
        """The single path it matches; None if it has metacharacters."""
        plain = re.sub(r"\\(.)", r"\1", self.pattern)
        return plain if not any(letter in _META for letter in re.sub(r"\\.", "", self.pattern)) else None

    @cached_property
    def beginning(self) -> str:
        """The fixed prefix of every path it matches, a quick filter: a policy has thousands of expressions."""
        done: list[str] = []
        letters = iter(self.pattern)
        for letter in letters:
            if letter in _META:
                # the quantifier makes the last letter optional
                if letter in "?*{" and done:
                    done.pop()
                return "" if _has_alternatives(self.pattern) else "".join(done)
            following = next(letters, "") if letter == "\\" else letter
            if letter == "\\" and following.isalnum():  # a class such as \d
                break
            done.append(following)
        return "" if _has_alternatives(self.pattern) else "".join(done)

    @cached_property
    def _expression(self) -> LinearPattern:
        try:
            return compile_pattern(self.pattern)
        except PatternError as error:
            raise InputError(
                _damaged(self.place, f"{self.pattern} is not a regular expression that pxe-pack can use: {error}")
            ) from error

    def matches(self, path: str, mode: int, steps: Usage) -> bool:
        """Whether it applies to `path` with the st_mode `mode`. Raises InputError if its expression is invalid.

        Matching it counts `steps`; LimitError is raised when they are used up.
        """
        if self.kind and self.kind != stat.S_IFMT(mode):
            return False
        if self.literal is not None:
            return path == self.literal
        return path.startswith(self.beginning) and self._expression.matches(path, steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileContexts:
    """The file contexts of a policy."""

    specifications: Sequence[Specification]  # in file order
    substitutions: Sequence[Mapping[str, str]] = field(default=())  # per file: prefix -> replacement
    steps: Usage = field(default_factory=lambda: Usage(Limit.PATTERN_STEPS), repr=False, compare=False)

    def label(self, path: str, mode: int) -> str | None:
        """The context of `path` (absolute, without symlinks); `mode` is st_mode. None if the policy assigns none.

        Raises InputError if a regular expression that may apply is invalid, LimitError if they take too many steps.
        """
        for table in self.substitutions:
            path = _substituted(path, table)
        last_first = self.specifications[::-1]
        literal = [one for one in last_first if one.literal is not None]
        for specification in (*literal, *(one for one in last_first if one.literal is None)):
            if specification.matches(path, mode, self.steps):
                return specification.context if specification.context != NO_LABEL else None
        return None


def read_file_contexts(tree: RootTree) -> FileContexts | None:
    """The file contexts of the policy that the image in `tree` uses; None if it has none.

    Raises InputError if they are damaged.
    """
    config = _text(tree, CONFIG)
    found = re.search(r"^\s*SELINUXTYPE\s*=\s*([\w.-]+)", config or "", re.MULTILINE)
    if not found:
        return None
    name = f"etc/selinux/{found[1]}/contexts/files/file_contexts"
    if (text := _text(tree, name)) is None:
        return None
    specifications = parse(text, name=name)
    for suffix in (".homedirs", ".local"):
        specifications += parse(_text(tree, name + suffix) or "", name=name + suffix)
    substitutions = [_pairs(_text(tree, name + suffix) or "") for suffix in (".subs", ".subs_dist")]
    return FileContexts(specifications=specifications, substitutions=substitutions)


def parse(text: str, *, name: str) -> list[Specification]:
    """The specifications in a file. Raises InputError for an invalid line."""
    found: list[Specification] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = f"/{name}:{number}"
        if len(words) not in (2, 3) or (len(words) == 3 and words[1] not in _TYPES):  # noqa: PLR2004
            raise InputError(_damaged(place, "expected a path, an optional type, and a context"))
        kind = _TYPES[words[1]] if len(words) == 3 else 0  # noqa: PLR2004
        found.append(Specification(pattern=words[0], kind=kind, context=words[-1], place=place))
    return found


def _pairs(text: str) -> dict[str, str]:
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {words[0]: words[1] for words in lines if len(words) >= 2}  # noqa: PLR2004


def _substituted(path: str, table: Mapping[str, str]) -> str:
    """`path` with the longest prefix in the table, of whole path components, replaced."""
    for beginning in sorted(table, key=len, reverse=True):
        if path == beginning or path.startswith(f"{beginning}/"):
            return table[beginning] + path.removeprefix(beginning)
    return path


def _has_alternatives(pattern: str) -> bool:
    """Whether there is a | outside parentheses and brackets."""
    plain = re.sub(r"\\.|\[[^]]*\]", "", pattern)
    depth = 0
    for letter in plain:
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            return True
    return False


def _text(tree: RootTree, path: str) -> str | None:
    real = tree.resolve(path)
    inode = tree.stat([real]).get(real)
    if inode is None or not stat.S_ISREG(inode.mode):
        return None
    return tree.cat(real).decode(errors="surrogateescape")


def _damaged(place: str, why: str) -> Problem:
    return Problem(
        reference="selinux-contexts-damaged",
        message=f"cannot parse the image's SELinux file contexts: {place}: {why}",
        hint="check with `selabel_lookup -b file -k /etc` inside the image, and rebuild its policy",
    )
