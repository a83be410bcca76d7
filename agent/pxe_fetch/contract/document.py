"""YAML text -> plain values, each with its position. Nothing here knows about configurations.

Only plain data is accepted: mappings with string keys, sequences, and the scalars of YAML 1.1 as PyYAML resolves them
(null, booleans, integers, floats, text; a date is text). Duplicate keys, several documents, and documents that
aliases make too large are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import yaml

from pxe_fetch.contract.problem import Position, Problem, ProblemError

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000  # after aliases are followed
MAX_DEPTH = 20

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Spot(NamedTuple):
    """Where a value is in the text. Its Position is made on demand: only values with a problem need one."""

    source: Source
    start: yaml.Mark
    end: yaml.Mark

    def position(self) -> Position:
        start, end = self.start, self.end
        line = self.source.line(start.line)
        width = end.column - start.column if end.line == start.line else len(line) - start.column
        return Position(
            file=self.source.name, line=start.line + 1, column=start.column + 1, width=max(1, width), text=line
        )


class Source:
    """The text of a document."""

    def __init__(self, text: str, *, name: str) -> None:
        self.name = name
        self._lines = text.splitlines()

    def line(self, index: int) -> str:
        """The line `index`, from 0; empty behind the last one."""
        return self._lines[index] if index < len(self._lines) else ""


class Scalar(NamedTuple):
    """Text, a number, true or false, or null; `text` is the value as written, without quotes."""

    value: str | int | float | bool | None
    text: str
    spot: Spot

    @property
    def at(self) -> Position:
        return self.spot.position()


class Sequence(NamedTuple):
    """A list of values."""

    items: tuple[Value, ...]
    spot: Spot

    @property
    def at(self) -> Position:
        return self.spot.position()


class Entry(NamedTuple):
    """A value, and where its key is."""

    value: Value
    key_spot: Spot

    @property
    def key_at(self) -> Position:
        return self.key_spot.position()


class Mapping(NamedTuple):
    """Named values, in the order of the text."""

    entries: dict[str, Entry]
    spot: Spot

    @property
    def at(self) -> Position:
        return self.spot.position()


Value = Scalar | Sequence | Mapping


def load(text: str, *, name: str, problems: list[Problem]) -> Value:
    """The only document in `text`; positions call the file `name`. An empty text is an empty mapping.

    Problems that leave the rest readable (a key given twice, an odd tag) are added to `problems`. Raises ProblemError
    if there is no readable document.
    """
    if len(text) > MAX_CHARACTERS:
        raise ProblemError(_problem("document-too-large", f"{name} has more than {MAX_CHARACTERS:,} characters"))
    source = Source(text, name=name)
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        raise ProblemError(_syntax(error, source=source)) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ProblemError(_problem("yaml-syntax", f"{name} is not YAML: {error}".splitlines()[0])) from None
    except (RecursionError, ValueError) as error:
        raise ProblemError(_problem("yaml-syntax", f"{name} is not readable YAML: {error}")) from None
    if root is None:
        beginning = yaml.Mark(name, 0, 0, 0, None, 0)
        return Mapping({}, Spot(source, beginning, beginning))
    return _Reader(source, problems=problems).value(root, depth=0)


class _Reader:
    """Turns PyYAML's nodes into values, and collects the problems in them."""

    def __init__(self, source: Source, *, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        self.budget = MAX_VALUES

    def value(self, node: yaml.Node, *, depth: int) -> Value:
        spot = Spot(self.source, node.start_mark, node.end_mark)
        self.budget -= 1
        if depth > MAX_DEPTH or self.budget < 0:
            message = "this is nested too deeply" if depth > MAX_DEPTH else "aliases make this document too large"
            raise ProblemError(_problem("document-too-large", message, where=spot.position()))
        if isinstance(node, yaml.MappingNode):
            return Mapping(dict(self._entries(node, depth=depth)), spot)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(tuple([self.value(item, depth=depth + 1) for item in node.value]), spot)
        return self._scalar(node, spot)

    def _entries(self, node: yaml.MappingNode, *, depth: int) -> Iterator[tuple[str, Entry]]:
        seen: dict[str, Spot] = {}
        for key_node, value_node in node.value:
            spot = Spot(self.source, key_node.start_mark, key_node.end_mark)
            value = self.value(value_node, depth=depth + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(_problem("key-not-text", "a key must be text", where=spot.position()))
                continue
            key = key_node.value
            if key in seen:
                self.problems.append(
                    _problem(
                        "duplicate-key",
                        f"`{key}` is given twice",
                        where=spot.position(),
                        label=f"first given in line {seen[key].start.line + 1}",
                        hint="keep one of the two",
                    )
                )
                continue
            seen[key] = spot
            yield key, Entry(value, spot)

    def _scalar(self, node: yaml.Node, spot: Spot) -> Scalar:
        text: str = node.value
        value: str | int | float | bool | None = text
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str" | "timestamp" | "merge" | "value":
                pass
            case "null":
                value = None
            case "bool":
                value = _BOOLEANS[text.lower()]
            case "int":
                value = _number(text, int)
            case "float":
                value = _number(text, float)
            case tag:
                message = f"the tag `{tag}` is not allowed here"
                self.problems.append(_problem("yaml-tag", message, where=spot.position(), hint="write plain data"))
        return Scalar(value, text, spot)


def _number(text: str, kind: type[int | float]) -> str | int | float:
    """`text` as a number if it is plain decimal; YAML 1.1's octal, sexagesimal and underscored forms stay text."""
    plain = text.removeprefix("-").removeprefix("+")
    if kind is int and plain.isascii() and plain.isdigit() and (plain == "0" or not plain.startswith("0")):
        return int(text) if len(plain) < 30 else text  # noqa: PLR2004  no size or count has 30 digits
    if kind is float:
        try:
            return float(text)
        except ValueError:  # .inf, .nan, 1:30.5
            return text
    return text


def _syntax(error: yaml.MarkedYAMLError, *, source: Source) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = None
    if mark is not None:
        where = Position(file=source.name, line=mark.line + 1, column=mark.column + 1, text=source.line(mark.line))
    said = " ".join(part for part in (error.context, error.problem) if part)
    hint = "indent YAML with spaces, not tabs" if where and "\t" in where.text else ""
    return _problem("yaml-syntax", f"this is not YAML: {said}", where=where, hint=hint)


def _problem(
    reference: str, message: str, *, where: Position | None = None, label: str = "", hint: str = ""
) -> Problem:
    return Problem(reference=reference, message=message, where=where, label=label, hint=hint)
