"""Text -> model, collecting every problem. `read` is the only way from text to a configuration.

model.py declares the keys: their kinds, rules and sections. Here each kind of value is read; checks.py has the rules
about several values at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from pxe_fetch.contract import checks, document, keys
from pxe_fetch.contract.document import Problems, Section, Value
from pxe_fetch.contract.mirrors import requested
from pxe_fetch.contract.model import SECTIONS, Artifact, FetchConfig
from pxe_fetch.contract.paths import DEFAULT_ROOTS
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError
from pxe_fetch.contract.url import Tiers, each, flat
from pxe_fetch.contract.validators import OneOf, Rule, joined

T = TypeVar("T")
MAPPING = "a mapping (`key: value` lines)"
Values = dict[str, Any]  # of a section: by the names of the model's fields
# What takes an artifact without a digest, and its URLs joined to `base_url`: the artifact to use. Raises RuleError.
Pin = Callable[[Artifact, tuple[str, ...]], Artifact]


def read(text: str, *, name: str, pin: Pin = checks.unpinned) -> FetchConfig:
    """The configuration in the YAML `text`; positions call the file `name`. A section `pack` is passed over.

    Artifacts whose bytes nothing in `text` pins are passed to `pin`; by default they are refused. Raises ProblemError
    with every problem found, each with its position, in the order of the text.
    """
    return read_all(text, name=name, sections=SECTIONS, pin=pin)[0]


def read_all(
    text: str, *, name: str, sections: Mapping[str, keys.SectionKeys], pin: Pin = checks.unpinned
) -> tuple[FetchConfig, Values]:
    """As `read`, with the sections of another program that are in `sections` beside the agent's own."""
    root = load_root(text, name=name)
    found = Reader(sections, pin=pin).config(root)
    root.problems.check()
    return found


def load_root(text: str, *, name: str) -> Section:
    """The YAML `text`, which must be a mapping, not yet read by keys. Raises ProblemError."""
    problems = Problems(text, name=name)
    value = document.load(text, name=name, problems=problems)
    if not isinstance(value.data, dict):
        where = problems.position(value.spot)
        raise ProblemError(Problem(reference="wrong-type", message=f"{name} must be {MAPPING}", where=where))
    return Section(value.data, value.spot, path="", problems=problems)


class Reader:
    """Reads values as `sections` declare them."""

    def __init__(self, sections: Mapping[str, keys.SectionKeys], *, pin: Pin = checks.unpinned) -> None:
        self.sections = sections
        self.pin = pin

    def config(self, root: Section) -> tuple[FetchConfig, Values]:
        checks.version(root)
        values = self.values(root, "", {})
        others = {name: values.pop(name) for name in list(values) if name in self.sections and name not in SECTIONS}
        defaults = values.pop("defaults", {})
        if "base_url" in defaults:
            values["base_url"] = defaults.pop("base_url")
        roots, sections = values.get("allowed_roots", DEFAULT_ROOTS), values.pop("artifacts", [])
        base = values.get("base_url")
        artifacts = [self.artifact(section, defaults=defaults, roots=roots, base=base) for section in sections]
        checks.distinct(sections, artifacts)
        checks.tls(root.below("tls"))
        config = FetchConfig(**values, artifacts=tuple(artifacts))
        if config.report.url and (report := root.below("report")):
            checks.secret(report, config.report, urls=(config.report.url,))
        return config, others

    def artifact(self, section: Section, *, defaults: Values, roots: tuple[str, ...], base: str | None) -> Artifact:
        values = {"name": section.path, "dest": "", **self.values(section, "artifacts", defaults)}
        base_url = values.pop("base_url", None)

        def whole(url: str) -> str:
            return joined((url,), base_url)[0]

        checks.origin(section)
        checks.digest(section)
        checks.in_registry(section, flat(values.get("mirrors", ())))
        checks.when(section.below("when"))
        checks.start(section)
        checks.dest(section, values["dest"], roots)
        if "chunks" in values:
            checks.chunks(section, values["chunks"], size=values.get("size"))
            values["chunks"] = replace(values["chunks"], mirrors=each(values["chunks"].mirrors, whole))
        values["mirrors"] = each(values.get("mirrors", ()), whole)
        if "digest_url" in values:
            values["digest_url"] = whole(values["digest_url"])
        artifact = Artifact(**values)
        file = requested(artifact, base=base).file
        checks.secret(section, artifact, urls=joined(flat(file), base))
        if not checks.is_pinned(section, artifact.urls):
            try:
                return self.pin(artifact, joined(artifact.urls, base))
            except RuleError as error:
                section.broken(error, name=section.path, spot=section.spot)
        return artifact

    def values(self, section: Section, name: str, inherited: Values) -> Values:
        """The values of `section`, read as the section `name`, on top of the `inherited` ones."""
        known = self.sections[name]
        values = dict(inherited)
        for key in known.needed:
            if not section.has(key):
                needed = known.keys[key].key
                message = f"{section.path} has no `{key}`" if section.path else f"the key `{key}` is missing"
                section.add(needed.missing, message, hint=needed.hint)
        for key, (value, _) in section.entries.items():
            declared = known.keys.get(key)
            if declared is None:
                if not key.startswith(keys.EXTENSION):
                    section.unknown(key, known.keys)
            elif value.data is not None:
                before = values.get(declared.field)
                found = self.value(section, key, value, declared.key.kind, before)
                if declared.key.item and found is not None:
                    found = {**(before or {}), key: found}
                if found is not None:
                    values[declared.field] = found
        return values

    def value(self, section: Section, key: str, value: Value, kind: keys.Kind, before: object) -> object:  # noqa: PLR0911  one case per kind
        """`value` as the model has it, on top of the value `before`; None if it is wrong, after adding the problem."""
        match kind:
            case keys.Text():
                found = _text(section, key, value, kind.rule, kind.types)
                return found if kind.load is None or found is None else kind.load(found)
            case keys.Size() | keys.Duration():  # `5` and `5s` are both judged as they are written
                return _text(section, key, value, kind.rule, types=(str, int, float))
            case keys.Texts():
                return _texts(section, key, value, kind)
            case keys.Mirrors():
                return _mirrors(section, key, value, kind)
            case keys.Flag() | keys.Whole():
                return _flag_or_whole(section, key, value, kind)
            case keys.Table():
                return self.table(section, key, value, kind, before)
            case keys.Group():
                return self.group(section, key, value, kind, before)

    def table(self, section: Section, key: str, value: Value, kind: keys.Table, before: object) -> Values | None:
        """A mapping whose keys are the user's own names, on top of the values from `before`."""
        if not (table := section.below(key, value)):
            return section.wrong_type(value, key, MAPPING)
        values = dict(cast("Values", before or {}))
        for name, (entry, spot) in table.entries.items():
            known = name
            try:
                known = kind.names(name)
            except RuleError as error:
                table.broken(error, name=f"{table.path}: `{name}`", spot=spot)
            found = None if entry.data is None else self.value(table, name, entry, kind.of, None)
            if found is not None:
                values[kind.rename(known) if kind.rename else known] = found
        return values

    def group(self, section: Section, key: str, value: Value, kind: keys.Group, before: object) -> object:
        """A section as the model has it: an object, a dict without a class of its own, or a list of unread sections."""
        if kind.section not in self.sections or (kind.word and value.data == kind.word):
            return kind.meant
        if kind.many:
            return _sections(section, key, value)
        if not (below := section.below(key, value)):
            words = (kind.word,) if kind.word else ()
            return section.wrong_type(value, key, " or ".join([MAPPING, *words]), words=words)
        values = self.values(below, kind.section, {})
        model = self.sections[kind.section].model
        if model is None:
            return values
        return model(**values) if before is None else replace(cast("Any", before), **values)


def _text(section: Section, key: str, value: Value, rule: Rule[T], types: tuple[type, ...] = (str,)) -> T | None:
    words = rule.choices if isinstance(rule, OneOf) else ()
    if type(value.data) not in types and value.text not in words:  # a choice may be spelled `true`
        if words:
            return section.wrong_type(value, key, str(rule), words=words)
        return section.wrong_type(value, key, "text")
    try:
        return rule(value.text)
    except RuleError as error:
        return section.broken(error, name=section.name(key), spot=value.spot)


def _texts(section: Section, key: str, value: Value, kind: keys.Texts) -> object:
    if isinstance(value.data, list):
        found = [_text(section, f"{key}[{at}]", item, kind.rule) for at, item in enumerate(value.data)]
    elif isinstance(value.data, dict) or not kind.or_one:
        return section.wrong_type(value, key, "a list")
    else:
        found = [_text(section, key, value, kind.rule)]
    return kind.load(item for item in found if item is not None)


def _mirrors(section: Section, key: str, value: Value, kind: keys.Mirrors) -> Tiers | None:
    """A list of mirrors; with a list in it, each item is a tier, and no mirror is in two."""
    if kind.or_one and not isinstance(value.data, list | dict):
        one = _text(section, key, value, kind.rule)
        return ((one,),) if one else None
    if not isinstance(value.data, list):
        return section.wrong_type(value, key, "a list")
    is_tiered, known = any(isinstance(item.data, list) for item in value.data), set[str]()
    tiers: list[tuple[str, ...]] = []
    for at, item in enumerate(value.data):
        name, tier = f"{key}[{at}]", item.data if isinstance(item.data, list) else [item]
        named = [(f"{name}[{inner}]" if tier is item.data else name, one) for inner, one in enumerate(tier)]
        found = [(path, one, _text(section, path, one, kind.rule)) for path, one in named]
        if not tier:
            message = f"{section.name(name)} is a tier without a mirror"
            section.add("tier-empty", message, at=item.spot, hint="leave it out")
        for path, one, url in found:
            if url in known and is_tiered:
                message = f"{section.name(path)} is given before"
                section.add("mirror-twice", message, at=one.spot, hint="keep the first: each mirror is in one tier")
            known.update(filter(None, (url,)))
        tiers.append(tuple(url for _, _, url in found if url is not None))
    return tuple(tiers) if is_tiered else tuple(filter(None, (flat(tuple(tiers)),)))


def _flag_or_whole(section: Section, key: str, value: Value, kind: keys.Flag | keys.Whole) -> bool | int | None:
    found, is_flag = value.data, isinstance(kind, keys.Flag)
    if type(found) is not (bool if is_flag else int):
        return section.wrong_type(value, key, "true or false" if is_flag else "a whole number")
    if isinstance(kind, keys.Whole) and not kind.least <= found <= kind.most:
        message = f"must be from {kind.least} to {kind.most}" if kind.most > kind.least else f"must be {kind.least}"
        return section.refuse(key, message, reference="number-out-of-range")
    return found


def _sections(section: Section, key: str, value: Value) -> list[Section] | None:
    if not isinstance(value.data, list):
        return section.wrong_type(value, key, "a list")
    found = []
    for at, item in enumerate(value.data):
        if below := section.below(f"{key}[{at}]", item):
            found.append(below)
        else:
            section.wrong_type(item, f"{key}[{at}]", MAPPING)
    return found
