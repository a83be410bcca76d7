"""Regular expressions that an image brings along, matched in time linear in the text: no pattern can take for ever.

Python's `re` and PCRE try one alternative after the other, so `(a+)+b` takes them hours. Here all of them are followed
at once (R. Cox, "Regular Expression Matching Can Be Simple And Fast"). This is the part of PCRE's language that the
SELinux policies use (pcre2pattern(3)): alternatives, groups, classes, and quantifiers, whose greed decides nothing
about whether a whole text matches. Lookaround, back references and possessive quantifiers are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pxe_pack.image.limits import Limit, Usage

_COUNT = re.compile(r"\{(\d{1,5})(?:(,)(\d{0,5}))?\}", re.ASCII)
_DIGIT, _SPACE = (("0", "9"),), ((" ", " "), ("\t", "\r"))
_LOWER, _UPPER = ("a", "z"), ("A", "Z")
_WORD = (*_DIGIT, _LOWER, _UPPER, ("_", "_"))
_ESCAPES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_POSIX = {
    "alnum": (*_DIGIT, _LOWER, _UPPER),
    "alpha": (_LOWER, _UPPER),
    "digit": _DIGIT,
    "lower": (_LOWER,),
    "space": _SPACE,
    "upper": (_UPPER,),
    "xdigit": (*_DIGIT, ("a", "f"), ("A", "F")),
}
_LAST = "\U0010ffff"
_DEPTH = 50  # groups in one another


class PatternError(ValueError):
    """The text is no expression of this language; the message says why."""


@dataclass(frozen=True, slots=True)
class _Letters:
    """One letter of some."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def has(self, letter: str) -> bool:
        return any(first <= letter <= last for first, last in self.ranges) != self.negated


@dataclass(frozen=True, slots=True)
class _Repeated:
    inner: _Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class _Either:
    choices: tuple[tuple[_Node, ...], ...]


_Node = _Letters | _Repeated | _Either
_ANYTHING = _Repeated(_Letters((), negated=True), 0, None)


@dataclass(slots=True)
class LinearPattern:
    """A compiled expression: states, each with the letter it takes (None: none) and the states that follow."""

    letters: list[_Letters | None] = field(default_factory=list)
    following: list[tuple[int, ...]] = field(default_factory=list)
    start: int = 0

    def matches(self, text: str, steps: Usage) -> bool:
        """Whether it matches all of `text`. Raises LimitError if `steps` are used up."""
        steps.add(len(self.letters))
        states = self._reached([self.start])
        for letter in text:
            steps.add(len(states))
            taken = (state for state in states if (one := self.letters[state]) and one.has(letter))
            states = self._reached(following for state in taken for following in self.following[state])
            if not states:
                return False
        return 0 in states

    def _reached(self, states: Iterable[int]) -> set[int]:
        """The states that are reached without taking a letter."""
        found: set[int] = set()
        todo = list(states)
        while todo:
            state = todo.pop()
            if state not in found:
                found.add(state)
                todo += () if self.letters[state] else self.following[state]
        return found

    def _state(self, letters: _Letters | None, *following: int) -> int:
        self.letters.append(letters)
        self.following.append(following)
        Limit.PATTERN_STATES.check(len(self.letters))
        return len(self.letters) - 1

    def _before(self, nodes: Sequence[_Node], after: int) -> int:
        """The state that begins `nodes`, which `after` follows."""
        for node in reversed(nodes):
            if isinstance(node, _Letters):
                after = self._state(node, after)
            elif isinstance(node, _Either):
                after = self._state(None, *(self._before(one, after) for one in node.choices))
            else:
                after = self._repeated(node, after)
        return after

    def _repeated(self, node: _Repeated, after: int) -> int:
        if node.most is None:
            loop = self._state(None)
            self.following[loop] = (self._before([node.inner], loop), after)
            entry = loop
        else:
            entry = after
            for _ in range(node.most - node.least):
                entry = self._state(None, self._before([node.inner], entry), after)
        for _ in range(node.least):
            entry = self._before([node.inner], entry)
        return entry


def compile_pattern(text: str) -> LinearPattern:
    """The expression `^text$`, in which, as libselinux writes it, ^ is of the first alternative and $ of the last.

    Raises PatternError, and LimitError if it is too large.
    """
    parser = _Parser(text)
    choices = parser.choices(0)
    if parser.at < len(text):
        raise PatternError("a parenthesis is not opened")
    last = len(choices) - 1
    free = [
        (*(() if number == 0 else (_ANYTHING,)), *choice, *(() if number == last else (_ANYTHING,)))
        for number, choice in enumerate(choices)
    ]
    made = LinearPattern()
    end = made._state(None)  # noqa: SLF001  the number that `matches` looks for: 0
    made.start = made._before([_Either(tuple(free))], end)  # noqa: SLF001
    return made


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def choices(self, depth: int) -> tuple[tuple[_Node, ...], ...]:
        """The alternatives up to the end or to a parenthesis that closes."""
        if depth > _DEPTH:
            raise PatternError(f"it has more than {_DEPTH} groups in one another")
        found: list[list[_Node]] = [[]]
        while self.at < len(self.text) and self._peek() != ")":
            if self._peek() == "|":
                self.at += 1
                found.append([])
            elif not (depth == 0 and self._is_anchor(is_first=not found[-1])):
                found[-1].append(self._quantified(self._atom(depth)))
        return tuple(map(tuple, found))

    def _is_anchor(self, *, is_first: bool) -> bool:
        """Skip a ^ or $ that says what is so anyway."""
        says_nothing = (self._peek() == "^" and is_first and self.at == 0) or self.text[self.at :] == "$"
        self.at += says_nothing
        return says_nothing

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self) -> str:
        letter = self._peek()
        self.at += 1
        return letter

    def _atom(self, depth: int) -> _Node:
        letter = self._take()
        if letter == "(":
            if self.text.startswith("?:", self.at):
                self.at += 2
            elif self._peek() == "?":
                raise PatternError("lookaround and options are not supported")
            inner = self.choices(depth + 1)
            if self._take() != ")":
                raise PatternError("a parenthesis is not closed")
            return _Either(inner)
        if letter == "[":
            return self._class()
        if letter == ".":
            return _Letters((), negated=True)
        if letter == "\\":
            return self._escape()
        if letter in "*+?":
            raise PatternError("there is nothing to repeat")
        if letter in "^$":
            raise PatternError(f"{letter} is not supported there")
        return _Letters(((letter, letter),))

    def _escape(self) -> _Letters:
        letter = self._take()
        if letter.lower() in _ESCAPES and letter:
            return _Letters(_ESCAPES[letter.lower()], negated=letter.isupper())
        if not letter or letter.isalnum():
            raise PatternError(f"\\{letter} is not supported")
        return _Letters(((letter, letter),))

    def _class(self) -> _Letters:
        negated = self._peek() == "^"
        self.at += negated
        ranges: list[tuple[str, str]] = []
        first = self.at
        while self._peek() != "]" or self.at == first:
            named = re.compile(r"\[:(\w+):\]", re.ASCII).match(self.text, self.at)
            if named and named[1] in _POSIX:
                self.at = named.end()
                ranges += _POSIX[named[1]]
                continue
            letter = self._take()
            if not letter:
                raise PatternError("a class is not closed")
            if letter == "\\":
                escaped = self._escape()
                if escaped.negated:
                    ranges += _complement(escaped.ranges)
                    continue
                if len(escaped.ranges) > 1 or escaped.ranges == _DIGIT:
                    ranges += escaped.ranges
                    continue
                letter = escaped.ranges[0][0]
            last = letter
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
                self.at += 1
                last = self._take()
                last = self._escape().ranges[0][0] if last == "\\" else last
            if last < letter:
                raise PatternError(f"the range {letter}-{last} is backwards")
            ranges.append((letter, last))
        self.at += 1
        return _Letters(tuple(ranges), negated=negated)

    def _quantified(self, atom: _Node) -> _Node:
        counted = _COUNT.match(self.text, self.at)
        letter = self._peek()
        if counted:
            self.at = counted.end()
            least = int(counted[1])
            most = least if not counted[2] else int(counted[3]) if counted[3] else None
        elif letter and letter in "*+?":
            self.at += 1
            least, most = int(letter == "+"), 1 if letter == "?" else None
        else:
            return atom
        if most is not None and most < least:
            raise PatternError("a quantifier has its numbers backwards")
        if self._peek() == "?":  # as few as possible: the same texts
            self.at += 1
        elif self._peek() == "+":
            raise PatternError("possessive quantifiers are not supported")
        elif self._peek() == "*" or _COUNT.match(self.text, self.at):
            raise PatternError("a quantifier follows another one")
        return _Repeated(atom, least, most)


def _complement(ranges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    found, start = [], "\0"
    for first, last in sorted(ranges):
        if first > start:
            found.append((start, chr(ord(first) - 1)))
        start = chr(ord(last) + 1)
    return [*found, (start, _LAST)]
