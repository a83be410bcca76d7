"""One mapping of the document at its path, and the problems that are found in it."""

from __future__ import annotations

from collections.abc import Iterable

from pxe_fetch.contract.document import Mapping, Scalar, Sequence, Value
from pxe_fetch.contract.problem import Position, Problem
from pxe_fetch.contract.validators import RuleError


class Section:
    """A mapping under `path`; it knows where each of its keys stands, and nothing of what they mean."""

    def __init__(self, mapping: Mapping, *, path: str, problems: list[Problem]) -> None:
        self.mapping = mapping
        self.path = path
        self.problems = problems

    def has(self, key: str) -> bool:
        """Whether the key is written, with something behind it."""
        entry = self.mapping.entries.get(key)
        return entry is not None and not is_nothing(entry.value)

    def given(self, keys: Iterable[str]) -> list[str]:
        """Which of `keys` it has."""
        return [key for key in keys if self.has(key)]

    def value(self, key: str) -> Value | None:
        """What is written at the key."""
        entry = self.mapping.entries.get(key)
        return entry.value if entry else None

    def below(self, key: str) -> Section | None:
        """The section at `key`; None where there is none, or something else."""
        value = self.value(key)
        return self.section(value, key) if isinstance(value, Mapping) else None

    def section(self, mapping: Mapping, key: str) -> Section:
        """The section that `mapping`, found at `key`, is."""
        return Section(mapping, path=self.name(key), problems=self.problems)

    def is_list(self, key: str) -> bool:
        """Whether a list is written at the key."""
        return isinstance(self.value(key), Sequence)

    def is_empty_list(self, key: str) -> bool:
        """Whether a list without anything in it is written at the key."""
        value = self.value(key)
        return isinstance(value, Sequence) and not value.items

    def where(self, key: str) -> Position:
        """Where the key's value stands, or the section when it is not written."""
        value = self.value(key)
        return value.at if value is not None else self.mapping.at

    def name(self, key: str) -> str:
        """The key with the path to it."""
        return f"{self.path}.{key}" if self.path else key

    def add(
        self, reference: str, message: str, *, where: Position | None = None, label: str = "", hint: str = ""
    ) -> None:
        """Collect a problem; it stands at the section unless `where` says better."""
        self.problems.append(
            Problem(reference=reference, message=message, where=where or self.mapping.at, label=label, hint=hint)
        )

    def broken(self, error: RuleError, *, name: str, where: Position) -> None:
        """Collect a broken rule as a problem of what is called `name`."""
        self.add(error.reference, f"{name} {error.message}", where=where, label=error.label, hint=error.hint)

    def wrong_type(self, value: Value, key: str, expected: str) -> None:
        """Collect that `value`, found at `key`, is not what is expected there."""
        hint = f'quote it: "{value.text}"' if expected == "text" and isinstance(value, Scalar) else ""
        message = f"{self.name(key)} has to be {expected}"
        self.add("wrong-type", message, where=value.at, label=f"this is {_type_of(value)}", hint=hint)

    def unknown(self, key: str, known: Iterable[str]) -> None:
        """Collect a key that is none of the known ones; the hint names the nearest."""
        from difflib import get_close_matches

        names = list(known)
        near = get_close_matches(key, names, n=1)
        place = f" in {self.path}" if self.path else ""
        self.add(
            "unknown-key",
            f"unknown key `{key}`{place}",
            where=self.mapping.entries[key].key_at,
            hint=f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(names)}",
        )


def is_nothing(value: Value) -> bool:
    """Whether nothing stands after `key:`, which is as good as no such key."""
    return isinstance(value, Scalar) and value.value is None


def _type_of(value: Value) -> str:
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
