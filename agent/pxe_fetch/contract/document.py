"""YAML text -> plain values, each of which knows where it stands. Nothing here knows what a configuration is.

Only plain data is taken: mappings with string keys, sequences, and the scalars of YAML 1.1 as PyYAML resolves them
(null, booleans, integers, floats, text; a date is text). Duplicate keys, several documents, and documents that grow
out of measure by aliases are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from pxe_fetch.contract.problem import Position, Problem, ProblemError

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000  # after aliases are followed
MAX_DEPTH = 20

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """Text, a number, a truth value, or nothing; `text` is how it was written (without quotes)."""

    value: str | int | float | bool | None
    text: str
    at: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """A list of values."""

    items: tuple[Value, ...]
    at: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A value and where its key stands."""

    value: Value
    key_at: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapping:
    """Named values, in the order in which they were written."""

    entries: dict[str, Entry]
    at: Position


Value = Scalar | Sequence | Mapping


def load(text: str, *, name: str, problems: list[Problem]) -> Value:
    """The one document in `text`; `name` is what positions call the file. An empty text is an empty mapping.

    What leaves the rest readable (a key given twice, an odd tag) is added to `problems`; ProblemError is raised where
    there is no document to read.
    """
    if len(text) > MAX_CHARACTERS:
        raise ProblemError(_problem("document-too-large", f"{name} has more than {MAX_CHARACTERS:,} characters"))
    lines = text.splitlines()
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        raise ProblemError(_syntax(error, name=name, lines=lines)) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ProblemError(_problem("yaml-syntax", f"{name} is not YAML: {error}".splitlines()[0])) from None
    except (RecursionError, ValueError) as error:
        raise ProblemError(_problem("yaml-syntax", f"{name} is not YAML that can be read: {error}")) from None
    if root is None:
        return Mapping(entries={}, at=Position(file=name, line=1, column=1, text=lines[0] if lines else ""))
    return _Reader(name=name, lines=lines, problems=problems).value(root, depth=0)


class _Reader:
    """Turns PyYAML's nodes into values and collects what is wrong with them."""

    def __init__(self, *, name: str, lines: list[str], problems: list[Problem]) -> None:
        self.name = name
        self.lines = lines
        self.problems = problems
        self.budget = MAX_VALUES

    def value(self, node: yaml.Node, *, depth: int) -> Value:
        at = self._position(node)
        self.budget -= 1
        if depth > MAX_DEPTH or self.budget < 0:
            message = "this is nested too deeply" if depth > MAX_DEPTH else "aliases make this document too large"
            raise ProblemError(_problem("document-too-large", message, where=at))
        if isinstance(node, yaml.MappingNode):
            return Mapping(entries=dict(self._entries(node, depth=depth)), at=at)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(items=tuple(self.value(item, depth=depth + 1) for item in node.value), at=at)
        return self._scalar(node, at)

    def _entries(self, node: yaml.MappingNode, *, depth: int) -> Iterator[tuple[str, Entry]]:
        seen: dict[str, Position] = {}
        for key_node, value_node in node.value:
            key_at = self._position(key_node)
            value = self.value(value_node, depth=depth + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(_problem("key-not-text", "a key has to be text", where=key_at))
                continue
            key = key_node.value
            if key in seen:
                self.problems.append(
                    _problem(
                        "duplicate-key",
                        f"`{key}` is given twice",
                        where=key_at,
                        label=f"first given in line {seen[key].line}",
                        hint="keep one of the two",
                    )
                )
                continue
            seen[key] = key_at
            yield key, Entry(value=value, key_at=key_at)

    def _scalar(self, node: yaml.Node, at: Position) -> Scalar:
        text: str = node.value
        value: str | int | float | bool | None = text
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "null":
                value = None
            case "bool":
                value = _BOOLEANS[text.lower()]
            case "int":
                value = _number(text, int)
            case "float":
                value = _number(text, float)
            case "str" | "timestamp" | "merge" | "value":
                pass
            case tag:
                self.problems.append(
                    _problem("yaml-tag", f"the tag `{tag}` is not allowed here", where=at, hint="write plain data")
                )
        return Scalar(value=value, text=text, at=at)

    def _position(self, node: yaml.Node) -> Position:
        start, end = node.start_mark, node.end_mark
        line = self.lines[start.line] if start.line < len(self.lines) else ""
        width = end.column - start.column if end.line == start.line else len(line) - start.column
        return Position(file=self.name, line=start.line + 1, column=start.column + 1, width=max(1, width), text=line)


def _number(text: str, kind: type[int | float]) -> str | int | float:
    """The number that `text` plainly is; YAML 1.1's octal, sexagesimal and underscored forms stay text."""
    plain = text.removeprefix("-").removeprefix("+")
    if kind is int and plain.isascii() and plain.isdigit() and (plain == "0" or not plain.startswith("0")):
        return int(text) if len(plain) < 30 else text  # noqa: PLR2004  no size or count has 30 digits
    if kind is float:
        try:
            return float(text)
        except ValueError:  # .inf, .nan, 1:30.5
            return text
    return text


def _syntax(error: yaml.MarkedYAMLError, *, name: str, lines: list[str]) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = None
    if mark is not None:
        text = lines[mark.line] if mark.line < len(lines) else ""
        where = Position(file=name, line=mark.line + 1, column=mark.column + 1, text=text)
    said = " ".join(part for part in (error.context, error.problem) if part)
    hint = "YAML is indented by spaces, never tabs" if where and "\t" in where.text else ""
    return _problem("yaml-syntax", f"this is not YAML: {said}", where=where, hint=hint)


def _problem(
    reference: str, message: str, *, where: Position | None = None, label: str = "", hint: str = ""
) -> Problem:
    return Problem(reference=reference, message=message, where=where, label=label, hint=hint)
