"""The form of `fetch.yaml` as a JSON Schema (draft-07), for editors and pipelines. Never imported on a node.

It is made by letting `validate` read a document that only takes notes: which keys it asks for, as what, with which
rule and default. So no key can be in the one and not in the other. The schema accepts whatever `validate` accepts; what
takes a look at two values at once (a destination outside of allowed_roots, a name given twice) is left to `validate`.
Source: https://json-schema.org/draft-07/json-schema-validation.
"""

from __future__ import annotations

import re
from typing import TypeVar

from pxe_fetch.contract import document, quantity, rules, validate
from pxe_fetch.contract.meaning import MEANINGS
from pxe_fetch.contract.section import Rule, Section

T = TypeVar("T")

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Schema = dict[str, Json]

DRAFT = "http://json-schema.org/draft-07/schema#"
ANY_KEY = "*"  # stands for every key of a section whose keys are the user's own names


def _whole(pattern: re.Pattern[str]) -> str:
    """`pattern` as JSON Schema has it, which asks for a match anywhere."""
    return f"^(?:{pattern.pattern})$"


_ABSOLUTE = r"^[A-Za-z][A-Za-z0-9+.-]*:"
# What JSON Schema can say of a rule. A rule that is not here asks for text.
_FORMS: dict[object, Schema] = {
    rules.name: {"pattern": _whole(rules.NAME)},
    rules.any_text: {"minLength": 1},
    rules.file_name: {"minLength": 1},
    rules.url: {"minLength": 1, "pattern": r"^\S+$"},
    rules.http_url: {"pattern": r"^https?://\S+$"},
    rules.proxy: {"pattern": r"^https?://\S+$"},
    rules.exemption: {"pattern": _whole(rules.EXEMPTION)},
    rules.base_url: {"pattern": rf"{_ABSOLUTE}\S+$"},
    rules.absolute_path: {"pattern": "^/"},
    rules.node_path: {"pattern": "^/"},
    rules.root: {"pattern": "^/."},
    rules.mode: {"pattern": _whole(rules.MODE)},
    rules.account: {"pattern": _whole(rules.ACCOUNT)},
    rules.unit: {"pattern": _whole(rules.UNIT)},
    rules.credential: {"pattern": _whole(rules.CREDENTIAL)},
}
_DURATION: Schema = {"type": "string", "pattern": _whole(quantity.DURATION)}
_SIZE: Schema = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _whole(quantity.SIZE)}]}


def _given(*keys: str) -> list[Json]:
    """A form a key: it is there, with something behind it."""
    return [{"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in keys]


_ALTERNATIVES = _given("url", "urls", "source")
_DIGESTS = _given("sha256", "sha512", "sha256_url")
_NEEDED = {"": ("version",), "artifact": ("name", "dest"), "chunks": ("size",)}
_PINNED = _given("source", "chunks")
# An artifact has one origin; and one digest, which only a local file and one with chunk digests may lack.
_ARTIFACT: Schema = {
    "oneOf": _ALTERNATIVES,
    "anyOf": [{"oneOf": _DIGESTS}, {"anyOf": _PINNED, "not": {"anyOf": _DIGESTS}}],
}


def schema() -> Schema:
    """The schema of a whole `fetch.yaml`, `pack` section included."""
    root = _Notes(section="")
    validate.from_section(root)
    return {"$schema": DRAFT, "title": "fetch.yaml of pxe-pack and pxe-fetch", **root.schema()}


class _Notes(Section):
    """A section that has nothing written in it, and takes down what it is asked for."""

    def __init__(self, *, section: str) -> None:
        super().__init__(document.nothing(document.Source("", name="")), path=section, problems=[])
        self.section_name = section
        self.properties: Schema = {}
        self.sections_below: dict[str, _Notes] = {}
        self.lists_below: dict[str, _Notes] = {}
        self.words: dict[str, str] = {}  # key -> what may stand there instead of a section
        self.key_form: Schema | None = None

    def schema(self) -> Schema:
        """What was taken down."""
        found = dict(self.properties)
        for key, notes in self.sections_below.items():
            form = _or_nothing(notes.schema())
            found[key] = self._described(key, _or_word(form, self.words[key]) if key in self.words else form)
        for key, notes in self.lists_below.items():
            found[key] = self._described(key, _or_nothing({"type": "array", "items": notes.schema()}))
        if self.key_form is not None:
            return {"type": "object", "propertyNames": self.key_form, "additionalProperties": found[ANY_KEY]}
        needed: list[Json] = list(_NEEDED.get(self.section_name, ()))
        return {
            "type": "object",
            "properties": found,
            "additionalProperties": False,
            **({"required": needed} if needed else {}),
            **(_ARTIFACT if self.section_name == "artifact" else {}),
        }

    def lacks(self, *_keys: str) -> bool:
        return False  # each of them is asked for then

    def text(self, key: str, rule: Rule[T]) -> T | None:
        self._note(key, _text(rule))
        return None

    def texts(self, key: str, rule: Rule[T]) -> tuple[T, ...] | None:
        self._note(key, {"type": "array", "items": _text(rule)})
        return None

    def one_or_more(self, key: str, rule: Rule[T]) -> tuple[T, ...] | None:
        self._note(key, {"anyOf": [_text(rule), {"type": "array", "items": _text(rule)}]})
        return None

    def flag(self, key: str, default: bool) -> bool:  # noqa: FBT001  as Section has it
        self._note(key, {"type": "boolean", "default": default})
        return default

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        usual: Schema = {"default": default} if least <= default <= most else {}
        self._note(key, {"type": "integer", "minimum": least, "maximum": most, **usual})
        return default

    def duration(self, key: str, default: float, *, least: float = 0.0) -> float:  # noqa: ARG002  as Section has it
        self._note(key, {**_DURATION, "default": quantity.show_duration(default)})
        return default

    def size(self, key: str, default: int | None) -> int | None:
        usual: Schema = {} if default is None else {"default": quantity.show_size(default)}
        self._note(key, {**_SIZE, **usual})
        return default

    def section(self, key: str) -> Section:
        self.properties[key] = None  # its place among the others
        return self.sections_below.setdefault(key, _Notes(section=key))

    def says(self, key: str, word: str) -> bool:
        self.words[key] = word
        return False

    def sections(self, key: str) -> list[Section]:
        self.properties[key] = None
        return [self.lists_below.setdefault(key, _Notes(section=key.removesuffix("s")))]

    def own_keys(self, rule: Rule[str]) -> list[str]:
        self.key_form = _text(rule)
        return [ANY_KEY]

    def _note(self, key: str, form: Schema) -> None:
        needed = key in _NEEDED.get(self.section_name, ())
        self.properties[key] = self._described(key, form if needed else _or_nothing(form))

    def _described(self, key: str, form: Schema) -> Schema:
        shared = "artifact" if self.section_name == "defaults" else self.section_name
        for section in (self.section_name, shared):
            if meaning := MEANINGS.get(section, {}).get(key):
                return {"description": meaning, **form}
        return form


def _text(rule: Rule[T]) -> Schema:
    if isinstance(rule, rules.OneOf):
        return {"type": "string", "enum": list(rule.choices)}
    if isinstance(rule, rules.DigestOf):
        return {"type": "string", "pattern": f"^[0-9A-Fa-f]{{{rule.digits}}}$"}
    return {"type": "string", **_FORMS.get(rule, {})}


def _or_word(form: Schema, word: str) -> Schema:
    """`form` of a section, or the word in its place; of a form's parts, `pattern` is about texts alone."""
    types = form["type"]
    return {
        **form,
        "type": [*types, "string"] if isinstance(types, list) else [types, "string"],
        "pattern": f"^{word}$",
    }


def _or_nothing(form: Schema) -> Schema:
    """`form`, or nothing: `key:` with nothing behind it is as good as absent."""
    if "anyOf" in form and "type" not in form:
        alternatives = form["anyOf"]
        return {**form, "anyOf": [*alternatives, {"type": "null"}]} if isinstance(alternatives, list) else form
    choices = form.get("enum")
    allowed: Schema = {"enum": [*choices, None]} if isinstance(choices, list) else {}
    return {**form, "type": [form["type"], "null"], **allowed}
