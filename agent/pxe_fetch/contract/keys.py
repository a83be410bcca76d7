"""How a key of `fetch.yaml` is declared: once, in the metadata of the model's field that holds its value.

The declarations drive the reader (reader.py) and, in pxe_pack, dump.py, the JSON Schema (schema.py), the tables of
docs/fetch-yaml.md (reference.py) and the template of `pxe-pack init`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from pxe_fetch.contract import quantity
from pxe_fetch.contract.validators import Rule

T = TypeVar("T")
METADATA = "keys"  # of a field: a tuple of Key
EXTENSION = "x-"  # a key that begins so is for other programs: in every section it is passed over, whatever its value


class Text(NamedTuple):
    """One text. `rule` checks it; `load` makes the field's value from the rule's result."""

    rule: Rule[object]
    load: Callable[..., object] | None = None
    types: tuple[type, ...] = (str,)  # what YAML may take it for; it counts as it is written


class Texts(NamedTuple):
    """A list of texts. `load` makes the field's value from the rule's results."""

    rule: Rule[object]
    or_one: bool = False  # a text alone is one of them
    load: Callable[..., object] = tuple


class Mirrors(NamedTuple):
    """A list of texts, which are one tier; or of tiers, each a text or a list of texts. Tiers in the model."""

    rule: Rule[str]
    or_one: bool = False  # a text alone is one mirror


class Flag(NamedTuple):
    """True or false."""


class Whole(NamedTuple):
    """A whole number."""

    least: int
    most: int


class Duration(NamedTuple):
    """A duration; seconds in the model."""

    rule: Rule[float] = quantity.duration


class Size(NamedTuple):
    """A size; bytes in the model."""

    rule: Rule[int] = quantity.size


class Table(NamedTuple):
    """A mapping whose keys are the user's own names."""

    names: Rule[str]
    of: Text | Texts | Mirrors
    rename: Callable[[str], str] | None = None  # the key in the model


class Group(NamedTuple):
    """A section of keys, or a list of them; `word` is allowed in its place, and is `meant` so in the model."""

    section: str
    many: bool = False
    word: str = ""
    meant: object = None
    inline: bool = False  # its values are fields of the enclosing model


Kind = Text | Texts | Mirrors | Flag | Whole | Duration | Size | Table | Group


class Key(NamedTuple):
    """One key of `fetch.yaml`."""

    kind: Kind
    meaning: str  # a sentence: for editors, for the reference, and for `pxe-pack init`, which has the examples
    name: str = ""  # as written; the field's name otherwise
    sections: tuple[str, ...] = ()  # where it is allowed, if not (only) in the section of its own class
    item: bool = False  # the field is a mapping, and this key is one of its entries
    missing: str = ""  # it is required; the reference of the problem if it is missing
    hint: str = ""  # of that problem
    always: bool = False  # dumped even where it is the default


class FieldKey(NamedTuple):
    """A key in a section, and the field that holds its value."""

    field: str
    key: Key
    default: object  # MISSING where there is none
    owner: type  # the class that has the field


class SectionKeys(NamedTuple):
    """The keys of one section of the file, by name as written."""

    model: type | None  # the class that declares them; None if they are fields of several
    keys: dict[str, FieldKey]
    needed: list[str]  # required keys


def key(default: T, kind: Kind, meaning: str, **others: Any) -> T:  # noqa: ANN401  those of a Key
    """A dataclass field that one key sets; `default` is its value if the key is missing."""
    return spelled(Key(kind, meaning, **others), default=default)


def spelled(*several: Key, default: T) -> T:
    """A dataclass field that any one of several keys sets."""
    return field(default=default, metadata={METADATA: several})


def mapping(*several: Key) -> dict[str, Any]:
    """A dataclass field with a mapping, empty by default, that these keys set or fill."""
    return field(default_factory=dict, metadata={METADATA: several})


def sections(models: Mapping[str, type], *, groups: Mapping[str, Key] = MappingProxyType({})) -> dict[str, SectionKeys]:
    """Every section by its name; "" is the file itself.

    `models` are sections and the classes that declare their keys; `groups` are keys at the top of the file without a
    field: inline ones, whose keys the models declare, and those that another program reads.
    """
    inline = [name for name, one in groups.items() if isinstance(one.kind, Group) and one.kind.inline]
    found = {name: SectionKeys(model, {}, []) for name, model in {**models, **dict.fromkeys(inline)}.items()}
    for own, model in models.items():
        for each in fields(model):
            default = each.default if each.default_factory is MISSING else each.default_factory()
            for one in each.metadata.get(METADATA, ()):
                name = one.name or each.name
                for section in one.sections or (own,):
                    if section in inline and not own:
                        found[""].keys.setdefault(section, FieldKey(section, groups[section], MISSING, model))
                    found[section].keys[name] = FieldKey(each.name, one, default, model)
                    found[section].needed.extend([name] if one.missing else [])
    for name, one in groups.items():
        found[""].keys.setdefault(name, FieldKey(name, one, MISSING, type(None)))
    return found
