"""A mapping of the document, its path, and the problems found in it."""

from __future__ import annotations

from collections.abc import Iterable

from pxe_fetch.contract.document import Mapping, Problems, Scalar, Sequence, Spot, Value
from pxe_fetch.contract.validators import RuleError

_LONGEST_KEY = 64  # characters of a key that may be a known one, misspelt


class Section:
    """A mapping at `path`. It knows the positions of its keys, not their meaning."""

    def __init__(self, mapping: Mapping, *, path: str, problems: Problems) -> None:
        self.mapping = mapping
        self.path = path
        self.problems = problems

    def has(self, key: str) -> bool:
        """Whether the key has a value other than null."""
        entry = self.mapping.entries.get(key)
        return entry is not None and not is_nothing(entry.value)

    def given(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have a value."""
        return [key for key in keys if self.has(key)]

    def value(self, key: str) -> Value | None:
        """The value of the key; None if the key is missing."""
        entry = self.mapping.entries.get(key)
        return entry.value if entry else None

    def below(self, key: str) -> Section | None:
        """The section at `key`; None if there is no mapping."""
        value = self.value(key)
        return self.section(value, key) if isinstance(value, Mapping) else None

    def section(self, mapping: Mapping, key: str) -> Section:
        """The mapping found at `key`, as a section."""
        return Section(mapping, path=self.name(key), problems=self.problems)

    def is_list(self, key: str) -> bool:
        """Whether the value of the key is a list."""
        return isinstance(self.value(key), Sequence)

    def is_empty_list(self, key: str) -> bool:
        """Whether the value of the key is an empty list."""
        value = self.value(key)
        return isinstance(value, Sequence) and not value.items

    def where(self, key: str) -> Spot:
        """Where the key's value is, or the section if the key is missing."""
        value = self.value(key)
        return value.spot if value is not None else self.mapping.spot

    def name(self, key: str) -> str:
        """The path of the key."""
        return f"{self.path}.{key}" if self.path else key

    def add(self, reference: str, message: str, *, where: Spot | None = None, label: str = "", hint: str = "") -> None:
        """Collect a problem, at `where` or else at the section."""
        self.problems.add(reference, message, where or self.mapping.spot, label=label, hint=hint)

    def broken(self, error: RuleError, *, name: str, where: Spot) -> None:
        """Collect a broken rule as a problem of the value called `name`."""
        self.add(error.reference, f"{name} {error.message}", where=where, label=error.label, hint=error.hint)

    def wrong_type(self, value: Value, key: str, expected: str) -> None:
        """Collect that `value`, found at `key`, has the wrong type."""
        hint = f'quote it: "{value.text}"' if expected == "text" and isinstance(value, Scalar) else ""
        message = f"{self.name(key)} must be {expected}"
        self.add("wrong-type", message, where=value.spot, label=f"this is {_type_of(value)}", hint=hint)

    def unknown(self, key: str, known: Iterable[str]) -> None:
        """Collect an unknown key; the hint suggests the nearest known one."""
        names = list(known)
        near = [] if self.problems.is_full or len(key) > _LONGEST_KEY else _similar(key, names)
        place = f" in {self.path}" if self.path else ""
        hint = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(names)}"
        self.add("unknown-key", f"unknown key `{key}`{place}", where=self.mapping.entries[key].key_spot, hint=hint)


def _similar(key: str, names: list[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(key, names, n=1)


def is_nothing(value: Value) -> bool:
    """Whether the value is null, which counts as no such key."""
    return isinstance(value, Scalar) and value.value is None


def _type_of(value: Value) -> str:
    """The type of `value` in words."""
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
