"""GRUB's `test` command, and its numbers, as they come out on a node that boots over the network.

Source: GRUB, commands/test.c (`-a` binds tighter than `-o`; a word that is no test is true if not empty), kern/misc.c
(grub_strtoull). Over TFTP a directory cannot be listed, so `-d`, `-e` and `-f` are false for every file; `-s` opens the
file, so it tells the truth.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

from pxe_pack.image.grub.words import UNKNOWN

_DEPTH_LIMIT = 100  # MAX_TEST_RECURSION_DEPTH

_STRINGS: Mapping[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}
_LISTED = frozenset({"-d", "-e", "-f"})
_NUMBER = re.compile(r"\s*(?:0x(?P<hex>[0-9a-fA-F]+)|(?P<octal>0[0-7]+)|(?!0x)(?P<decimal>[0-9]+))", re.ASCII)


def leading_number(text: str) -> tuple[int, str] | None:
    """The number that `text` begins with, as GRUB reads it, and what follows it; None if it begins with none."""
    found = _NUMBER.match(text)
    if found is None:
        return None
    base = 16 if found["hex"] else 8 if found["octal"] else 10
    digits = found["hex"] or found["octal"] or found["decimal"]
    return min(int(digits[:64], base), (1 << 64) - 1), text[found.end() :]


def _signed(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    number = leading_number(text.removeprefix("-"))
    return sign * number[0] if number else 0


def test(words: Sequence[str], *, is_filled: Callable[[str], bool]) -> bool | None:
    """The result of `test words`, or of `[ words` without the `]`; None if it depends on what only the node knows.

    `is_filled` tells whether the server has a file with at least one byte.
    """
    return _Expression(words, is_filled).parse(depth=0)


class _Expression:
    def __init__(self, words: Sequence[str], is_filled: Callable[[str], bool]) -> None:
        self._words = words
        self._at = 0
        self._is_filled = is_filled

    def parse(self, *, depth: int) -> bool | None:
        """The value up to the closing parenthesis, or the end."""
        either: bool | None = False
        both: bool | None = True
        inverted = False
        while self._at < len(self._words):
            word = self._words[self._at]
            known, value = self._primary()
            if not known:
                self._at += 1
                if word == ")":
                    break
                if word == "!":
                    inverted = not inverted
                    continue
                if word == "-a":
                    continue
                if word == "-o":
                    either, both = _any(either, both), True
                    continue
                inner = word == "(" and depth < _DEPTH_LIMIT
                value = self.parse(depth=depth + 1) if inner else _unless(word, bool(word))
            both = _all(both, not value if inverted and value is not None else value)
            inverted = False
        return _any(either, both)

    def _primary(self) -> tuple[bool, bool | None]:
        """Whether a test with operands begins here, and its value; moves on behind it."""
        rest = self._words[self._at : self._at + 3]
        if len(rest) == 3 and (found := self._binary(*rest)) is not _NO_TEST:  # noqa: PLR2004  operand, test, operand
            self._at += 3
            return True, _unless(rest[0] + rest[2], bool(found))
        if len(rest) > 1 and (found := self._unary(*rest[:2])) is not _NO_TEST:
            self._at += 2
            return True, _unless(rest[1], bool(found))
        return False, None

    def _binary(self, one: str, name: str, other: str) -> object:
        if name in _STRINGS:
            return _STRINGS[name](one, other)
        if name in _NUMBERS:
            return _NUMBERS[name](_signed(one), _signed(other))
        if name in ("-pgt", "-plt"):
            first, second = _behind_common_prefix(one, other)
            return first > second if name == "-pgt" else first < second
        return False if name[:3] in ("-nt", "-ot") else _NO_TEST

    def _unary(self, name: str, operand: str) -> object:
        if name in _LISTED:
            return False
        if name == "-s":
            return self._is_filled(operand)
        return {"-n": bool(operand), "-z": not operand}.get(name, _NO_TEST)


_NO_TEST = object()


def _unless(operands: str, value: bool) -> bool | None:  # noqa: FBT001  a result
    """`value`, unless the operands contain what only the node knows."""
    return None if UNKNOWN in operands else value


def _behind_common_prefix(one: str, other: str) -> tuple[int, int]:
    """The numbers that follow the longest common prefix without its last digits."""
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    at -= 1
    while at > 0 and one[at].isdigit():
        at -= 1
    return _signed(one[at + 1 :]), _signed(other[at + 1 :])


def _any(one: bool | None, other: bool | None) -> bool | None:  # noqa: FBT001  operands
    return True if one or other else None if None in (one, other) else False


def _all(one: bool | None, other: bool | None) -> bool | None:  # noqa: FBT001  operands
    return False if False in (one, other) else None if None in (one, other) else True
