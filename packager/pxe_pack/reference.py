"""Generates the tables of keys in docs/fetch-yaml.md from the declarations in pxe_fetch.contract.model and config.py.

The last column of each table, `details`, is written by hand, and kept.

`python3 -m pxe_pack.reference docs/fetch-yaml.md` rewrites each table between its markers: `<!-- keys of SECTION -->`
(`fetch.yaml` for the top level) and `<!-- end of keys -->`. A section without markers is part of its parent's table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

import yaml

from pxe_fetch.contract import quantity, validators
from pxe_fetch.contract.keys import FieldKey, Group, Size, Text, Whole
from pxe_pack import dump
from pxe_pack.config import SECTIONS

WHOLE_FILE = "fetch.yaml"
_CELL = r"((?:\\.|[^|\\])*?)"  # of a table's row; a bar in it is escaped
_ROW = re.compile(rf"\| `([^`]+)` \| {_CELL} \| {_CELL} \| {_CELL} \|")
_TABLE = re.compile(r"(<!-- keys of (\S+) -->\n).*?(<!-- end of keys -->\n)", re.DOTALL)


def rewritten(text: str) -> str:
    """The Markdown `text` with its tables regenerated. Raises KeyError for an unknown section."""
    apart = {match[2] for match in _TABLE.finditer(text)}
    return _TABLE.sub(lambda match: f"{match[1]}{_table(match[2], match[0], apart=apart)}{match[3]}", text)


def default_of(declared: FieldKey) -> str:
    """The default as YAML on one line; empty if there is none, or if it is an empty value."""
    kind, default = declared.key.kind, declared.default
    if isinstance(kind, Group) or declared.key.item or declared.default is MISSING or default in (None, (), b"", {}):
        return ""
    if isinstance(kind, Size) and isinstance(default, int):
        return quantity.show_size(default)
    written = yaml.safe_dump(dump.plain(kind, default), default_flow_style=True, width=1000, allow_unicode=True)
    return written.removesuffix("...\n").strip()


def _table(section: str, before: str, *, apart: set[str]) -> str:
    """The table of `section`, with the details that the one `before` has."""
    rows = []
    for key, cells in _rows("" if section == WHOLE_FILE else section, path="", apart=apart):
        details = next((match[4] for match in _ROW.finditer(before) if match[1] == key), "")
        rows.append(f"| {_code(key)} | {cells} | {details} |")
    return "\n".join(["| key | default | meaning | details |", "|---|---|---|---|", *rows, ""])


def _rows(section: str, *, path: str, apart: set[str]) -> Iterator[tuple[str, str]]:
    """Each key with its path, and the cells for its default and meaning."""
    for name, declared in SECTIONS[section].keys.items():
        kind = declared.key.kind
        below = SECTIONS[kind.section].keys if isinstance(kind, Group) and kind.inline else {}
        elsewhere = [key for key, one in below.items() if len(one.key.sections) > 1]
        default = "(required)" if declared.key.missing else _code(default_of(declared))
        meaning = " ".join(filter(None, [declared.key.meaning, _range(declared)]))
        if elsewhere:
            meaning += f" Keys: {', '.join(map(_code, elsewhere))}."
        yield path + name, f"{default} | {meaning}"
        if isinstance(kind, Group) and not elsewhere and kind.section not in apart:
            yield from _rows(kind.section, path=f"{path}{name}.", apart=apart)


def _range(declared: FieldKey) -> str:
    """A sentence with the allowed values; empty if they cannot be listed."""
    match declared.key.kind:
        case Text(rule=validators.OneOf(choices=choices)):
            return f"One of {', '.join(map(_code, choices))}."
        case Whole(least=least, most=most) if least < most:
            return f"From {least} to {most}."
        case _:
            return ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
