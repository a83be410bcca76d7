"""Writes the configuration that a node reads. `reader.read(dump(config)) == config`, for every config.

The keys are declared in model.py; this module writes each kind of value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import yaml

from pxe_fetch.contract import chunks as cut
from pxe_fetch.contract import quantity, registry, validators
from pxe_fetch.contract.keys import Duration, FieldKey, Group, Kind, Mirrors, Table, Text, Texts
from pxe_fetch.contract.model import NO_CHUNKS, NO_CHUNKS_WORD, Artifact, Digest, FetchConfig
from pxe_fetch.contract.url import Tiers, each, flat
from pxe_pack.config import SECTIONS, Pack

Plain = str | int | bool | list["Plain"] | dict[str, "Plain"]


def dump(config: FetchConfig, *, pack: Pack | None = None) -> str:
    """`config` as the text of a `fetch.yaml`, with the section `pack` if given. Defaults are left out."""
    sections = {"pack": _section("pack", pack)} if pack and pack != Pack() else {}
    document = {**_section("", config), **sections}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)


def show_duration(seconds: float) -> str:
    """`seconds` in the largest unit that is exact; `quantity.duration` reads it back to the millisecond."""
    milliseconds = round(seconds * 1000)
    unit = next(unit for unit in ("h", "m", "s", "ms") if milliseconds % quantity.DURATION_UNITS[unit] == 0)
    return f"{milliseconds // quantity.DURATION_UNITS[unit]}{unit}" if milliseconds else "0s"


def plain(kind: Kind, value: object) -> Plain | None:  # noqa: C901, PLR0911, PLR0912  one case per kind
    """`value` as YAML data; None if this kind has no spelling for it."""
    match kind:
        case Text(rule=validators.mode):
            return f"{value:04o}"
        case Text(rule=quantity.moment):
            return quantity.show_moment(cast("int", value))
        case Text(rule=validators.DigestOf(algorithm=algorithm)):
            return value.hex if isinstance(value, Digest) and value.algorithm == algorithm else None
        case Text(rule=validators.url) if isinstance(value, tuple):  # one mirror is `url`, several are `urls`
            return cast("str", value[0][0]) if _is_one(value) else None
        case Mirrors(rule=validators.url) if _is_one(cast("Tiers", value)):
            return None
        case Mirrors(rule=registry.manifest_url):
            references = plain(Mirrors(registry.written), each(cast("Tiers", value), registry.written))
            return cast("list[Plain]", references)[0] if _is_one(cast("Tiers", value)) else references
        case Mirrors():
            tiers = cast("Tiers", value)
            return [list(tier) for tier in tiers] if len(tiers) > 1 else list(flat(tiers))
        case Texts(rule=validators.DigestOf()) if isinstance(value, bytes):
            digests = cut.listed(value).split()
            return digests[0] if len(digests) == 1 else list(digests)
        case Texts():
            return list(cast("Iterable[Plain]", value))
        case Duration():
            return show_duration(cast("float", value))
        case Table(of=of):
            written = {name: plain(of, one) for name, one in cast("Mapping[str, object]", value).items()}
            return {name: one for name, one in written.items() if one is not None}
        case Group(section=section, many=True):
            return [_section(section, one) for one in cast("Iterable[object]", value)]
        case Group(section=section):
            return NO_CHUNKS_WORD if value == NO_CHUNKS else _section(section, value)
        case _:
            return cast("Plain", value)


def _is_one(mirrors: Tiers) -> bool:
    return len(flat(mirrors)) == 1


def _section(name: str, model: object) -> dict[str, Plain]:
    """The keys of the section `name` whose fields belong to `model`."""
    found: dict[str, Plain] = {}
    for key, declared in SECTIONS[name].keys.items():
        written = _written(key, declared, model) if isinstance(model, declared.owner) else None
        if written is not None:
            found[key] = written
    return found


def _written(key: str, declared: FieldKey, model: object) -> Plain | None:
    kind = declared.key.kind
    if isinstance(kind, Group) and kind.inline:
        return _section(kind.section, model) or None
    value = getattr(model, declared.field)
    if isinstance(model, Artifact) and declared.field == "mirrors" and (key == "oci") != (model.title is not None):
        return None  # they are of another kind
    if declared.key.item:
        return plain(kind, value[key]) if key in value else None
    if value == declared.default and not (declared.key.always or declared.key.missing):
        return None
    return plain(kind, value)
