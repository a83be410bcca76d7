"""The JSON Schema (draft-07) of `fetch.yaml`, for editors and pipelines.

Keys, types, defaults and meanings are declared in model.py. The schema accepts everything that the reader accepts. Only
the reader checks rules about several values (a destination outside allowed_roots, a duplicate name).
Source: https://json-schema.org/draft-07/json-schema-validation.
"""

from __future__ import annotations

import re
from dataclasses import MISSING
from typing import cast

from pxe_fetch.contract import quantity, validators
from pxe_fetch.contract.keys import (
    EXTENSION,
    Duration,
    FieldKey,
    Flag,
    Group,
    Kind,
    Mirrors,
    Size,
    Table,
    Text,
    Texts,
    Whole,
)
from pxe_fetch.contract.model import DIGESTS, ORIGINS
from pxe_fetch.contract.validators import Rule
from pxe_pack import dump
from pxe_pack.config import SECTIONS, boot_url

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Schema = dict[str, Json]

DRAFT = "http://json-schema.org/draft-07/schema#"


def _whole(pattern: re.Pattern[str]) -> str:
    """`pattern` anchored at both ends: JSON Schema searches for a match anywhere."""
    return f"^(?:{pattern.pattern})$"


# The schema for each rule that is a function. Rules not listed here accept any text.
_FORMS: dict[object, Schema] = {
    validators.any_text: {"minLength": 1},
    validators.url: {"minLength": 1, "pattern": r"^\S+$"},
    boot_url: {"minLength": 1, "pattern": r"^\S+$"},
    validators.http_url: {"pattern": r"^https?://\S+$"},
    validators.proxy: {"pattern": r"^https?://\S+$"},
    validators.exemption: {"pattern": _whole(validators.EXEMPTION)},
    validators.base_url: {"pattern": r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$"},
    validators.account: {"pattern": _whole(validators.ACCOUNT)},
    validators.absolute_path: {"pattern": "^/"},
    validators.node_path: {"pattern": "^/"},
    validators.root: {"pattern": "^/."},
    quantity.live_space: {"pattern": rf"^(?:{quantity.SHARE}|{quantity.SIZE.pattern})$"},
    validators.mode: {"pattern": _whole(validators.MODE)},
    quantity.moment: {"pattern": f"^(?:{quantity.MOMENT})$"},
}
# The schema for each kind of value without parameters.
_SIMPLE: dict[type, Schema] = {
    Flag: {"type": "boolean"},
    Duration: {"type": "string", "pattern": _whole(quantity.DURATION)},
    Size: {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _whole(quantity.SIZE)}]},
}


_BOOLEANS = {"true": True, "false": False}


def _given(keys: tuple[str, ...]) -> list[Json]:
    """For each key, a schema that requires it with a value."""
    return [{"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in keys]


# An artifact has one origin, and at most one digest: `pxe-pack lock` makes one where there is none. See checks.py.
_ARTIFACT: Schema = {
    "oneOf": _given(ORIGINS),
    "anyOf": [{"oneOf": _given(DIGESTS)}, {"not": {"anyOf": _given(DIGESTS)}}],
}


def schema() -> Schema:
    """The schema of a complete `fetch.yaml`, including the `pack` section."""
    return {"$schema": DRAFT, "title": "fetch.yaml of pxe-pack and pxe-fetch", **_section("")}


def _section(name: str) -> Schema:
    section = SECTIONS[name]
    needed: list[Json] = list(section.needed)
    return {
        "type": "object",
        "properties": {key: _property(declared) for key, declared in section.keys.items()},
        "patternProperties": {f"^{EXTENSION}": {}},
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
        **(_ARTIFACT if name == "artifacts" else {}),
    }


def _property(declared: FieldKey) -> Schema:
    key = declared.key
    form = _form(key.kind)
    return {
        "description": key.meaning,
        **(form if key.missing else _or_nothing(form)),
        **_default(declared),
    }


def _default(declared: FieldKey) -> Schema:
    """The default, unless it only means that the key is absent."""
    kind, default = declared.key.kind, declared.default
    if declared.key.missing or declared.default is MISSING or default in (None, ()) or isinstance(kind, Group | Table):
        return {}
    if isinstance(kind, Size):
        return {"default": quantity.show_size(cast("int", default))}
    return {"default": cast("Json", dump.plain(kind, default))}


def _form(kind: Kind) -> Schema:  # noqa: PLR0911  one case per kind
    match kind:
        case Text(rule=rule, types=types):
            return {**_text(rule), "type": ["string", "number"]} if float in types else _text(rule)
        case Texts(rule=rule, or_one=or_one):
            texts: Schema = {"type": "array", "items": _text(rule)}
            return {"anyOf": [_text(rule), texts]} if or_one else texts
        case Mirrors(rule=rule, or_one=or_one):
            tier: Schema = {"type": "array", "items": _text(rule), "minItems": 1}
            several: Schema = {"type": "array", "items": {"anyOf": [_text(rule), tier]}}
            return {"anyOf": [_text(rule), several]} if or_one else several
        case Whole():
            return {"type": "integer", "minimum": kind.least, "maximum": kind.most}
        case Table():
            values = _or_nothing(_form(kind.of))
            return {"type": "object", "propertyNames": _text(kind.names), "additionalProperties": values}
        case Group():
            return _group(kind)
        case _:
            return _SIMPLE[type(kind)]


def _group(kind: Group) -> Schema:
    form = _section(kind.section)
    if kind.many:
        return {"type": "array", "items": form}
    return _or_word(form, kind.word) if kind.word else form


def _text(rule: Rule[object]) -> Schema:
    if isinstance(rule, validators.OneOf):
        flags: list[Json] = [value for word, value in _BOOLEANS.items() if word in rule.choices]  # if not quoted
        types: Json = ["string", "boolean"] if flags else "string"
        return {"type": types, "enum": [*rule.choices, *flags]}
    if isinstance(rule, validators.Matching):
        return {"type": "string", "pattern": _whole(re.compile(rule.pattern))}
    if isinstance(rule, validators.DigestOf):
        return {"type": "string", "pattern": f"^(?:{rule.algorithm}:)?[0-9A-Fa-f]{{{rule.digits}}}$"}
    return {"type": "string", **_FORMS.get(rule, {})}


def _or_word(form: Schema, word: str) -> Schema:
    """The schema `form` of a section, or the word instead of it; `pattern` only applies to texts."""
    return {**form, "type": ["object", "string"], "pattern": f"^{word}$"}


def _or_nothing(form: Schema) -> Schema:
    """`form`, or null: `key:` without a value means that the key is absent."""
    if "anyOf" in form and "type" not in form:
        alternatives = form["anyOf"]
        return {**form, "anyOf": [*alternatives, {"type": "null"}]} if isinstance(alternatives, list) else form
    choices, types = form.get("enum"), form["type"]
    allowed: Schema = {"enum": [*choices, None]} if isinstance(choices, list) else {}
    return {**form, "type": [*types, "null"] if isinstance(types, list) else [types, "null"], **allowed}
