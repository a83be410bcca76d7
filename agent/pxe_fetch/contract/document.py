"""YAML text -> plain values, each with its position. Nothing here knows about configurations.

Only plain data is accepted: mappings with string keys, sequences, and the scalars of YAML 1.1 (null, booleans, decimal
integers and floats, text; all else, such as a date, is text). Duplicate keys, several documents, and documents that are
too large or too deep are refused. The values are made from PyYAML's events as they come, so that no text costs more
memory or time than MAX_VALUES of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import yaml
from yaml.error import Mark

from pxe_fetch.contract.problem import Position, Problem, ProblemError, RuleError, suggestion

Event = Any  # a yaml.Event: PyYAML's stubs lack most of their attributes

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000  # keys included; those that an alias repeats count again
MAX_DEPTH = 20
_URL = re.compile(r"""(?<=://)[^\s"']+""")
MOST_PROBLEMS = 100  # that are shown
_LONGEST_KEY = 64  # characters of a key that may be a known one, misspelt

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{form: True for word in ("true", "yes", "on") for form in (word, word.title(), word.upper())},
    **{form: False for word in ("false", "no", "off") for form in (word, word.title(), word.upper())},
}
# Octal, hexadecimal, sexagesimal and underscored numbers of YAML 1.1 stay text, and so do those too long for any use.
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,28})", re.ASCII)
_FRACTION = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?", re.ASCII)
_TYPES = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
_TYPES |= dict.fromkeys((int, float), "a number")
_TAGS = "tag:yaml.org,2002:"
_TAGGED: dict[str, type | tuple[type, ...]] = {"null": type(None), "bool": bool, "int": int, "float": (int, float)}


Spot = tuple[Mark, Mark]  # where something begins and ends in the text
Scalar = str | int | float | bool | None


class Value(NamedTuple):
    """A scalar, a list of values, or named values in the order of the text."""

    data: Scalar | list[Value] | dict[str, Entry]
    spot: Spot
    text: str = ""  # of a scalar: as written, without quotes


class Entry(NamedTuple):
    """A named value, and where its name is."""

    value: Value
    key_spot: Spot


def _without_secrets(match: re.Match[str]) -> str:
    """A URL with asterisks for user, password and query: problems are logged. As long as before, for the carets."""
    place, mark, query = match[0].partition("?")
    user, at, rest = place.rpartition("@")
    return "*" * len(user) + at + rest + mark + "*" * len(query)


class Problems:
    """Problems of a text while they are collected: the first MOST_PROBLEMS of them, and the number of all."""

    def __init__(self, text: str, *, name: str) -> None:
        self._name, self._lines = name, text.splitlines()
        self.count = 0
        self._kept: list[Problem] = []

    @property
    def is_full(self) -> bool:
        """Whether further ones are only counted."""
        return len(self._kept) == MOST_PROBLEMS

    def position(self, spot: Spot) -> Position:
        """Where `spot` is, for people. Only values with a problem need it."""
        start, end = spot
        text = self._lines[start.line] if start.line < len(self._lines) else ""  # the text ends behind its last line
        width = (end.column if end.line == start.line else len(text)) - start.column
        shown = _URL.sub(_without_secrets, text)
        return Position(self._name, line=start.line + 1, column=start.column + 1, width=max(1, width), text=shown)

    def add(self, reference: str, message: str, spot: Spot, *, label: str = "", hint: str = "") -> None:
        """Add a problem of what is at `spot`, or count it."""
        self.count += 1
        if not self.is_full:
            where = self.position(spot)
            self._kept.append(Problem(reference=reference, message=message, where=where, label=label, hint=hint))

    def check(self) -> None:
        """Raise ProblemError if there are any, in the order of the text; the last one says how many are left out."""
        kept = sorted(self._kept, key=lambda p: (p.where.line, p.where.column) if p.where else (0, 0))
        if more := self.count - len(kept):
            kept.append(Problem(reference="more-problems", message=f"{more:,} more are not shown", severity="note"))
        if kept:
            raise ProblemError(*kept, count=self.count)


def load(text: str, *, name: str, problems: Problems) -> Value:
    """The only document in `text`; positions call the file `name`. An empty text is an empty mapping.

    Problems that leave the rest readable (a key given twice, an odd tag) are added to `problems`. Raises ProblemError
    if there is no readable document.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"{name} has more than {MAX_CHARACTERS:,} characters"
        raise ProblemError(Problem(reference="document-too-large", message=message))
    try:
        return _Reader(text, problems=problems).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = problems.position((mark, mark)) if mark else None
        message = " ".join(filter(None, ("this is not YAML:", error.context, error.problem)))
        hint = "indent YAML with spaces, not tabs" if where and "\t" in where.text else ""
        raise ProblemError(Problem(reference="yaml-syntax", message=message, where=where, hint=hint)) from None
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not allow, half of a surrogate pair
        message = f"{name} is not YAML: {error}".splitlines()[0]
        raise ProblemError(Problem(reference="yaml-syntax", message=message)) from None


class _Reader:
    """Turns PyYAML's events into values, and collects the problems in them."""

    def __init__(self, text: str, *, problems: Problems) -> None:
        self.events: Iterator[Event] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.problems = problems
        self.left = MAX_VALUES
        self.anchors: dict[str, tuple[Value, int]] = {}  # with the number of values in it

    def document(self) -> Value:
        """The value of the only document. Raises ProblemError and what PyYAML raises."""
        start, event = next(self.events), next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return Value({}, self._spot(start))
        root = self._value(next(self.events), depth=0)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._fatal("yaml-syntax", "this is more than one YAML document: another begins here", event)
        return root

    def _value(self, event: Event, *, depth: int) -> Value:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self._fatal("yaml-syntax", f"no complete value `&{event.anchor}` before this alias", event)
            value, number = self.anchors[event.anchor]
            self._spend(number, event)
            return value
        before = self.left
        self._spend(1, event)
        if depth > MAX_DEPTH:
            raise self._fatal("document-too-large", "this is nested too deeply", event)
        value = self._scalar(event) if isinstance(event, yaml.ScalarEvent) else self._collection(event, depth=depth)
        if event.anchor:
            self.anchors[event.anchor] = value, before - self.left
        return value

    def _spend(self, number: int, event: Event) -> None:
        self.left -= number
        if self.left < 0:
            message = f"this document has more than {MAX_VALUES:,} values, counting those of its aliases"
            raise self._fatal("document-too-large", message, event)

    def _collection(self, event: Event, *, depth: int) -> Value:
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in {None, "!", f"{_TAGS}seq", f"{_TAGS}map"}:
            self._odd_tag(event)
        items: list[Value] = []
        entries: dict[str, Entry] = {}
        for inner in self.events:
            if isinstance(inner, yaml.CollectionEndEvent):
                break
            if is_list:
                items.append(self._value(inner, depth=depth + 1))
            else:
                self._entry(inner, entries, depth=depth)
        return Value(items if is_list else entries, self._spot(event, end=inner))

    def _entry(self, event: Event, entries: dict[str, Entry], *, depth: int) -> None:
        """Add the key that begins with `event`, and the value behind it, to `entries`."""
        spot = self._spot(event)
        key = self._value(event, depth=depth + 1)
        value = self._value(next(self.events), depth=depth + 1)
        if isinstance(key.data, list | dict):
            self.problems.add("key-not-text", "a key must be text", spot)
        elif key.text in entries:
            first = entries[key.text].key_spot[0].line + 1
            label, hint = f"first given in line {first}", "keep one of the two"
            self.problems.add("duplicate-key", f"`{key.text}` is given twice", spot, label=label, hint=hint)
        else:
            entries[key.text] = Entry(value, spot)

    def _scalar(self, event: Event) -> Value:
        text: str = event.value
        value: Scalar = text
        if event.tag is None:
            value = _resolved(text) if event.implicit[0] else text
        elif (kind := event.tag.removeprefix(_TAGS)) in _TAGGED:
            value = _resolved(text)
            if not isinstance(value, _TAGGED[kind]):
                self._odd_tag(event, f"`{text}` does not fit its tag `!!{kind}`")
        elif kind not in {"str", "!"}:
            self._odd_tag(event)
        return Value(value, self._spot(event), text)

    def _odd_tag(self, event: Event, message: str = "") -> None:
        message = message or f"the tag `{event.tag.replace(_TAGS, '!!')}` is not allowed here"
        spot = self._spot(event)
        self.problems.add("yaml-tag", message, spot, hint="write plain data")

    def _spot(self, event: Event, *, end: Event | None = None) -> Spot:
        return event.start_mark, (end or event).end_mark

    def _fatal(self, reference: str, message: str, event: Event) -> ProblemError:
        where = self.problems.position(self._spot(event))
        return ProblemError(Problem(reference=reference, message=message, where=where))


def _resolved(text: str) -> Scalar:
    """A scalar without quotes and tag, as YAML 1.1 has it."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text


class Section(NamedTuple):
    """Named values at `path`. It knows their positions, not their meaning."""

    entries: dict[str, Entry]
    spot: Spot
    path: str
    problems: Problems

    def value(self, key: str) -> Value | None:
        """The value of the key; None if there is none, or null, which counts as none."""
        entry = self.entries.get(key)
        return entry.value if entry and entry.value.data is not None else None

    def has(self, key: str) -> bool:
        """Whether the key has a value."""
        return self.value(key) is not None

    def below(self, key: str, value: Value | None = None) -> Section | None:
        """The section at `key`, or that of its `value`; None if that has no named values."""
        if (found := value or self.value(key)) and isinstance(found.data, dict):
            return Section(found.data, found.spot, self.name(key), self.problems)
        return None

    def is_empty_list(self, key: str) -> bool:
        """Whether the value of the key is an empty list."""
        value = self.value(key)
        return value is not None and value.data == []

    def name(self, key: str) -> str:
        """The path of the key."""
        return f"{self.path}.{key}" if self.path else key

    def add(self, reference: str, message: str, *, at: str | Spot = "", label: str = "", hint: str = "") -> None:
        """Collect a problem: `at` a spot or the value of a key, else of the section."""
        if isinstance(at, str):
            at = self.entries[at].value.spot if at in self.entries else self.spot
        self.problems.add(reference, message, at, label=label, hint=hint)

    def refuse(self, key: str, message: str, *, reference: str, label: str = "", hint: str = "") -> None:
        """Collect a problem of the value of `key`; `message` follows its path."""
        self.add(reference, f"{self.name(key)} {message}", at=key, label=label, hint=hint)

    def broken(self, error: RuleError, *, name: str, spot: Spot) -> None:
        """Collect a broken rule as a problem of the value called `name`."""
        self.add(error.reference, f"{name} {error.message}", at=spot, label=error.label, hint=error.hint)

    def wrong_type(self, value: Value, key: str, expected: str, *, words: Sequence[str] = ()) -> None:
        """Collect that `value`, found at `key`, has the wrong type. It may be one of the `words`."""
        hint = f'quote it: "{value.text}"' if expected == "text" and not isinstance(value.data, list | dict) else ""
        likely = [word for word in words if (word != "none") is value.data]  # of `yes` and `no`, beside "none"
        if "none" in words and likely:
            hint = f"did you mean `{likely[0]}`?"
        message = f"{self.name(key)} must be {expected}"
        self.add("wrong-type", message, at=value.spot, label=f"this is {_TYPES[type(value.data)]}", hint=hint)

    def unknown(self, key: str, known: Collection[str]) -> None:
        """Collect an unknown key; the hint suggests the nearest known one."""
        is_typo = len(key) <= _LONGEST_KEY and not self.problems.is_full  # else looking for it takes long
        place = f" in {self.path}" if self.path else ""
        hint = (suggestion(key, known) if is_typo else "") or f"known keys here: {', '.join(known)}"
        self.add("unknown-key", f"unknown key `{key}`{place}", at=self.entries[key].key_spot, hint=hint)
