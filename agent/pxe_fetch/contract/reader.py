"""Text -> model, collecting every problem. `read` is the only way from text to a configuration.

model.py declares the keys: their kinds, rules and sections. Here each kind of value is read; checks.py has the rules
about several values at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from pxe_fetch.contract import checks, document, keys, validators
from pxe_fetch.contract.document import Problems, Scalar, Section, Sequence, Value, is_nothing
from pxe_fetch.contract.model import SECTIONS, Artifact, FetchConfig
from pxe_fetch.contract.paths import DEFAULT_ROOTS
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError
from pxe_fetch.contract.validators import Rule

T = TypeVar("T")
MAPPING = "a mapping (`key: value` lines)"
Values = dict[str, object]  # of a section: by the names of the model's fields


def read(text: str, *, name: str) -> FetchConfig:
    """The configuration in the YAML `text`; positions call the file `name`. A section `pack` is passed over.

    Raises ProblemError with every problem found, each with its position, in the order of the text.
    """
    return read_all(text, name=name, sections=SECTIONS)[0]


def read_all(text: str, *, name: str, sections: Mapping[str, keys.SectionKeys]) -> tuple[FetchConfig, Values]:
    """As `read`, with the sections of another program that are in `sections` beside the agent's own."""
    problems = Problems()
    root = document.load(text, name=name, problems=problems)
    if not isinstance(root, document.Mapping):
        message = f"{name} must be {MAPPING}"
        raise ProblemError(Problem(reference="wrong-type", message=message, where=root.spot.position()))
    found = _Reader(sections).config(Section(root, path="", problems=problems))
    problems.check()
    return found


class _Reader:
    """Reads values as `sections` declare them."""

    def __init__(self, sections: Mapping[str, keys.SectionKeys]) -> None:
        self.sections = sections

    def config(self, root: Section) -> tuple[FetchConfig, Values]:
        values = self.values(root, "", {})
        others = {name: values.pop(name) for name in list(values) if name in self.sections and name not in SECTIONS}
        defaults = cast("Values", values.pop("defaults", {}))
        if "base_url" in defaults:
            values["base_url"] = defaults.pop("base_url")
        roots = cast("tuple[str, ...]", values.get("allowed_roots", DEFAULT_ROOTS))
        sections = cast("list[Section]", values.pop("artifacts", []))
        artifacts = [self.artifact(section, defaults=defaults, roots=roots) for section in sections]
        for section, artifact in zip(sections, artifacts, strict=True):
            base_url = cast("str | None", values.get("base_url"))
            checks.secret(section, artifact, urls=validators.joined(artifact.urls, base_url))
        checks.distinct(sections, artifacts)
        checks.tls(root.below("tls"))
        config = _made(FetchConfig, {**values, "artifacts": tuple(artifacts)})
        if config.report.url and (report := root.below("report")):
            checks.secret(report, config.report, urls=(config.report.url,))
        return config, others

    def artifact(self, section: Section, *, defaults: Values, roots: tuple[str, ...]) -> Artifact:
        values = self.values(section, "artifacts", defaults)
        base_url = cast("str | None", values.pop("base_url", None))
        checks.origin(section)
        checks.digest(section)
        checks.when(section.below("when"))
        checks.start(section)
        checks.dest(section, cast("str", values.setdefault("dest", "")), roots)
        if "chunks" in values:
            given, size = cast("checks.ChunkValues | str", values["chunks"]), cast("int | None", values.get("size"))
            values["chunks"] = checks.chunks(section, given, size=size, base_url=base_url)
        if base_url is not None:
            values["urls"] = validators.joined(cast("tuple[str, ...]", values.get("urls", ())), base_url)
            if "digest_url" in values:
                (values["digest_url"],) = validators.joined((cast("str", values["digest_url"]),), base_url)
        values.setdefault("name", section.path)
        return _made(Artifact, values)

    def values(self, section: Section, name: str, inherited: Values) -> Values:
        """The values of `section`, read as the section `name`, on top of the `inherited` ones."""
        known = self.sections[name]
        values = dict(inherited)
        for key in known.needed:
            if not section.has(key):
                needed = known.keys[key].key
                message = f"{section.path} has no `{key}`" if section.path else f"the key `{key}` is missing"
                section.add(needed.missing, message, hint=needed.hint)
        for key, (value, _) in section.mapping.entries.items():
            declared = known.keys.get(key)
            if declared is None:
                section.unknown(key, known.keys)
            elif not is_nothing(value):
                before = values.get(declared.field)
                found = self.value(section, key, value, declared.key.kind, before)
                if declared.key.item and found is not None:
                    found = {**cast("Values", before or {}), key: found}
                if found is not None:
                    values[declared.field] = found
        return values

    def value(self, section: Section, key: str, value: Value, kind: keys.Kind, before: object) -> object:
        """`value` as the model has it, on top of the value `before`; None if it is wrong, after adding the problem."""
        match kind:
            case keys.Text():
                found = _text(section, key, value, kind.rule)
                return found if kind.load is None or found is None else kind.load(found)
            case keys.Size() | keys.Duration():  # `5` and `5s` are both judged as they are written
                return _text(section, key, value, kind.rule, types=(str, int, float))
            case keys.Texts() | keys.OneOrMore():
                return _texts(section, key, value, kind)
            case keys.Flag() | keys.Whole():
                return _flag_or_whole(section, key, value, kind)
            case keys.Table():
                return self.table(section, key, value, kind, before)
            case keys.Group():
                return self.group(section, key, value, kind, before)

    def table(self, section: Section, key: str, value: Value, kind: keys.Table, before: object) -> Values | None:
        """A mapping whose keys are the user's own names, on top of the values from `before`."""
        if not isinstance(value, document.Mapping):
            section.wrong_type(value, key, MAPPING)
            return None
        table = section.section(value, key)
        values = dict(cast("Values", before or {}))
        for name, entry in value.entries.items():
            try:
                kind.names(name)
            except RuleError as error:
                table.broken(error, name=f"{table.path}: `{name}`", where=entry.key_spot)
            found = None if is_nothing(entry.value) else self.value(table, name, entry.value, kind.of, None)
            if found is not None:
                values[kind.rename(name) if kind.rename else name] = found
        return values

    def group(self, section: Section, key: str, value: Value, kind: keys.Group, before: object) -> object:
        """A section as the model has it: an object, a dict without a class of its own, or a list of unread sections."""
        if kind.section not in self.sections:
            return None
        if kind.many:
            return _sections(section, key, value)
        if kind.word and isinstance(value, Scalar) and value.value == kind.word:
            return kind.word
        if not isinstance(value, document.Mapping):
            section.wrong_type(value, key, MAPPING)
            return None
        values = self.values(section.section(value, key), kind.section, {})
        model = self.sections[kind.section].model
        if model is None or kind.checked:
            return values
        return _made(model, values) if before is None else replace(cast("Any", before), **values)


def _made(model: Callable[..., T], values: Mapping[str, object]) -> T:
    return model(**values)


def _text(section: Section, key: str, value: Value, rule: Rule[T], types: tuple[type, ...] = (str,)) -> T | None:
    if not isinstance(value, Scalar) or type(value.value) not in types:
        section.wrong_type(value, key, "text")
        return None
    try:
        return rule(value.text)
    except RuleError as error:
        section.broken(error, name=section.name(key), where=value.spot)
        return None


def _texts(section: Section, key: str, value: Value, kind: keys.Texts | keys.OneOrMore) -> tuple[object, ...] | None:
    if isinstance(value, Scalar) and isinstance(kind, keys.OneOrMore):
        found = [_text(section, key, value, kind.rule)]
    elif isinstance(value, Sequence):
        found = [_text(section, f"{key}[{index}]", item, kind.rule) for index, item in enumerate(value.items)]
    else:
        section.wrong_type(value, key, "a list")
        return None
    return tuple([item for item in found if item is not None])


def _flag_or_whole(section: Section, key: str, value: Value, kind: keys.Flag | keys.Whole) -> bool | int | None:
    found = value.value if isinstance(value, Scalar) else None
    if type(found) is not (bool if isinstance(kind, keys.Flag) else int):
        section.wrong_type(value, key, "true or false" if isinstance(kind, keys.Flag) else "a whole number")
        return None
    if isinstance(kind, keys.Whole) and not kind.least <= found <= kind.most:
        message = f"{section.name(key)} must be from {kind.least} to {kind.most}"
        section.add("number-out-of-range", message, where=value.spot)
        return None
    return found


def _sections(section: Section, key: str, value: Value) -> list[Section] | None:
    if not isinstance(value, Sequence):
        section.wrong_type(value, key, "a list")
        return None
    found = []
    for index, item in enumerate(value.items):
        if isinstance(item, document.Mapping):
            found.append(section.section(item, f"{key}[{index}]"))
        else:
            section.wrong_type(item, f"{key}[{index}]", MAPPING)
    return found
