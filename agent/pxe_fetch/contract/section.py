"""One mapping of the document, read key by key; wrong types, wrong values and unknown keys are collected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pxe_fetch.contract import quantity
from pxe_fetch.contract.document import Mapping, Scalar, Sequence, Spot, Value
from pxe_fetch.contract.problem import Position, Problem

T = TypeVar("T")


class RuleError(ValueError):
    """A value breaks a rule. `message` follows the value's path ("artifacts[0].sha256 is not …")."""

    def __init__(self, message: str, *, reference: str, label: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reference = reference
        self.label = label
        self.hint = hint


Rule = Callable[[str], T]


class Section:
    """A mapping under `path`. Each getter takes a key off; what is left when `close` is called is unknown."""

    def __init__(self, mapping: Mapping, *, path: str, problems: list[Problem]) -> None:
        self.mapping = mapping
        self.path = path
        self.problems = problems
        self.known: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is written, with something behind it."""
        entry = self.mapping.entries.get(key)
        return entry is not None and not _is_nothing(entry.value)

    def lacks(self, *keys: str) -> bool:
        """Whether none of `keys` is written; they are known then."""
        if not self.mapping.entries.keys().isdisjoint(keys):
            return False
        self.known += keys
        return True

    def where(self, key: str) -> Position:
        """Where the key's value stands, or the section when it is not written."""
        entry = self.mapping.entries.get(key)
        return entry.value.at if entry else self.mapping.at

    def text(self, key: str, rule: Rule[T]) -> T | None:
        """What `rule` makes of the text at `key`; None when it is absent or wrong."""
        value = self._take(key)
        return None if value is None else self._checked(value, key, rule)

    def texts(self, key: str, rule: Rule[T]) -> tuple[T, ...] | None:
        """A list of texts."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, Sequence):
            self._wrong_type(value, key, "a list")
            return None
        checked = [self._checked(item, f"{key}[{index}]", rule) for index, item in enumerate(value.items)]
        return tuple(item for item in checked if item is not None)

    def one_or_more(self, key: str, rule: Rule[T]) -> tuple[T, ...] | None:
        """A text, or a list of texts."""
        if self.has(key) and isinstance(self.mapping.entries[key].value, Scalar):
            value = self.text(key, rule)
            return None if value is None else (value,)
        return self.texts(key, rule)

    def flag(self, key: str, default: bool) -> bool:  # noqa: FBT001  a value, not a switch
        """True or false."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, Scalar) and isinstance(value.value, bool):
            return value.value
        self._wrong_type(value, key, "true or false")
        return default

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        """A whole number."""
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, Scalar) or type(value.value) is not int:
            self._wrong_type(value, key, "a whole number")
            return default
        if not least <= value.value <= most:
            self.add("number-out-of-range", f"{self._name(key)} has to be from {least} to {most}", where=value.at)
            return default
        return value.value

    def duration(self, key: str, default: float, *, least: float = 0.0) -> float:
        """A duration, in seconds."""

        def rule(text: str) -> float:
            seconds = _quantity(text, quantity.duration, "duration-invalid", "a duration")
            if seconds < least:
                raise RuleError(
                    f"has to be at least {quantity.show_duration(least)}", reference="duration-out-of-range"
                )
            return seconds

        return self._measure(key, default, rule)

    def size(self, key: str, default: int | None) -> int | None:
        """A size, in bytes; a bare number is bytes."""
        return self._measure(key, default, lambda text: _quantity(text, quantity.size, "size-invalid", "a size"))

    def _measure(self, key: str, default: T, rule: Rule[T]) -> T:
        """What `rule` makes of a text or number: `5` and `5s` are both judged as they are written."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, Scalar) and not isinstance(value.value, bool):
            found = self._applied(rule, value.text, key, value.spot)
        else:
            found = self._checked(value, key, rule)
        return default if found is None else found

    def section(self, key: str) -> Section | None:
        """A section below this one."""
        value = self._take(key)
        return None if value is None else self._section(value, key)

    def says(self, key: str, word: str) -> bool:
        """Whether `word` stands at a key that else has a section."""
        entry = self.mapping.entries.get(key)
        if entry is None or not isinstance(entry.value, Scalar) or entry.value.value != word:
            return False
        self.known.append(key)
        return True

    def sections(self, key: str) -> list[Section]:
        """A list of sections."""
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, Sequence):
            self._wrong_type(value, key, "a list")
            return []
        found = [self._section(item, f"{key}[{index}]") for index, item in enumerate(value.items)]
        return [section for section in found if section is not None]

    def own_keys(self, rule: Rule[str]) -> list[str]:
        """The keys as written, for a section whose keys are the user's own names; `rule` checks each."""
        for key, entry in self.mapping.entries.items():
            try:
                rule(key)
            except RuleError as error:
                self._broken(error, name=f"{self.path}: `{key}`", where=entry.key_at)
        return list(self.mapping.entries)

    def is_empty_list(self, key: str) -> bool:
        """Whether a list without anything in it is written at `key`."""
        entry = self.mapping.entries.get(key)
        return entry is not None and isinstance(entry.value, Sequence) and not entry.value.items

    def add(
        self, reference: str, message: str, *, where: Position | None = None, label: str = "", hint: str = ""
    ) -> None:
        """Collect a problem; it stands at the section unless `where` says better."""
        self.problems.append(
            Problem(reference=reference, message=message, where=where or self.mapping.at, label=label, hint=hint)
        )

    def close(self) -> None:
        """Every key that no getter asked for is a problem, with the nearest known one as its hint."""
        for key, entry in self.mapping.entries.items():
            if key in self.known:
                continue
            from difflib import get_close_matches

            near = get_close_matches(key, self.known, n=1)
            place = f" in {self.path}" if self.path else ""
            known = ", ".join(dict.fromkeys(self.known))
            self.add(
                "unknown-key",
                f"unknown key `{key}`{place}",
                where=entry.key_at,
                hint=f"did you mean `{near[0]}`?" if near else f"known keys here: {known}",
            )

    def _take(self, key: str) -> Value | None:
        self.known.append(key)
        entry = self.mapping.entries.get(key)
        return None if entry is None or _is_nothing(entry.value) else entry.value

    def _name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _section(self, value: Value, key: str) -> Section | None:
        if isinstance(value, Mapping):
            return Section(value, path=self._name(key), problems=self.problems)
        self._wrong_type(value, key, "a mapping (`key: value` lines)")
        return None

    def _checked(self, value: Value, key: str, rule: Rule[T]) -> T | None:
        if not isinstance(value, Scalar) or not isinstance(value.value, str):
            self._wrong_type(value, key, "text")
            return None
        return self._applied(rule, value.value, key, value.spot)

    def _applied(self, rule: Rule[T], text: str, key: str, spot: Spot) -> T | None:
        try:
            return rule(text)
        except RuleError as error:
            self._broken(error, name=self._name(key), where=spot.position())
            return None

    def _broken(self, error: RuleError, *, name: str, where: Position) -> None:
        self.add(error.reference, f"{name} {error.message}", where=where, label=error.label, hint=error.hint)

    def _wrong_type(self, value: Value, key: str, expected: str) -> None:
        hint = f'quote it: "{value.text}"' if expected == "text" and isinstance(value, Scalar) else ""
        message = f"{self._name(key)} has to be {expected}"
        self.add("wrong-type", message, where=value.at, label=f"this is {_kind(value)}", hint=hint)


def _is_nothing(value: Value) -> bool:
    """Whether it is what stands behind `key:` and nothing else, which is as good as no such key."""
    return isinstance(value, Scalar) and value.value is None


def _kind(value: Value) -> str:
    """What `value` is, in words."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    match value.value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case None:
            return "nothing"
        case _:
            return "text"


def _quantity(text: str, parse: Callable[[str], T], reference: str, kind: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise RuleError(f"is not {kind}", reference=reference, label=str(error)) from None
