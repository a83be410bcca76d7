"""SBAT: the generations of a program's components, and the lowest ones that a node accepts.

Sources: shim, SBAT.md; sbat.c and csv.c (columns, comparison by atoi); SbatLevel_Variable.txt (published levels).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pxe_pack.image.limits import Limit
from pxe_pack.image.pe.program import PeProgram

_SECTION = ".sbat"
_COLUMNS = 6  # component, generation, vendor, package, version, URL
_DATED = "sbat"  # the first row of a level: its third column is the date
_NUMBER = re.compile(r"\s*([+-]?\d{1,9})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The lowest generations that are accepted: the content of the variable SbatLevel."""

    date: str  # such as 2025051000; newer levels replace older ones
    generations: Mapping[str, int]  # by component

    def refused(self, components: tuple[Component, ...]) -> Component | None:
        """The first component whose generation is too low; None if all are accepted."""
        return next((one for one in components if one.generation < self.generations.get(one.name, 0)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A row of a program's SBAT section."""

    name: str
    generation: int

    def __str__(self) -> str:
        return f"{self.name},{self.generation}"


# The newest level that was published. Newer shims and Windows Update set it on nodes, and it stays there.
PUBLISHED = Level(
    date="2025051000", generations={"sbat": 1, "shim": 4, "grub": 5, "grub.proxmox": 2}
)  # fmt: skip


def components(data: bytes, program: PeProgram) -> tuple[Component, ...]:
    """The components of `program`, whose bytes are `data`; empty if it has no valid SBAT section."""
    rows = _rows(program.section(data, _SECTION))
    if any(len(row) < _COLUMNS or not all(row[:_COLUMNS]) for row in rows):
        return ()  # shim rejects the section as a whole
    return tuple(Component(name=row[0], generation=_generation(row[1])) for row in rows)


def parse_level(text: bytes) -> Level | None:
    """The level in `text`, up to its first NUL; None if it is not one."""
    rows = _rows(text)
    if not rows or rows[0][0] != _DATED or any(len(row) < 2 for row in rows):  # noqa: PLR2004  component, generation
        return None
    date = rows[0][2] if len(rows[0]) > 2 else ""  # noqa: PLR2004
    return Level(date=date, generations={row[0]: _generation(row[1]) for row in rows})


def _rows(text: bytes) -> list[list[str]]:
    lines = text[: Limit.SBAT_SIZE.most].split(b"\0", 1)[0].decode("ascii", "backslashreplace").splitlines()
    return [[column if column.isprintable() else repr(column) for column in line.split(",")] for line in lines if line]


def _generation(text: str) -> int:
    """As atoi(3): 0 if there is no number."""
    found = _NUMBER.match(text)
    return int(found[1]) if found else 0
