"""`pxe-pack versions DIR`: the versions of a published layout, and what differs between them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pxe_pack.console import Console, joined
from pxe_pack.layout.changes import Change, changes, config_digest, iso_digest, kernels
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.published import published_at, read_published
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument of `versions`."""
    parser.description = (
        "List the versions of a layout that was published with `pack --publish DIR`, newest first, each with what "
        "changed since the version before it. A star marks the one that is served."
    )
    parser.add_argument("published", type=Path, metavar="DIR", help="the folder with the versions")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """List them. Raises InputError if DIR is no published folder."""
    published = read_published(arguments.published)
    listed: list[_Listed | _Damaged] = []
    before: Layout | None = None
    for name in published.versions():
        is_current = name == published.current
        try:
            layout = published.layout(name)
        except InputError as error:
            listed.append(_Damaged(name=name, why=error.problems[0].message, is_current=is_current))
            continue
        found = tuple(changes(before, layout)) if before else ()
        listed.append(_Listed(name=name, layout=layout, changes=found, is_current=is_current))
        before = layout
    listed.reverse()
    document = {"published": str(published.root), "versions": [one.document() for one in listed]}
    console.result(document, joined(line for one in listed for line in one.lines()))
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Damaged:
    """A version whose manifest cannot be trusted."""

    name: str
    why: str
    is_current: bool

    def lines(self) -> Iterator[str]:
        yield f"{'*' if self.is_current else ' '} {self.name}  damaged: {self.why}"

    def document(self) -> dict[str, object]:
        moment = published_at(self.name).isoformat()
        return {"version": self.name, "current": self.is_current, "published_at": moment, "damaged": self.why}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listed:
    """A version, and what differs from the sound one published before it."""

    name: str
    layout: Layout
    changes: tuple[Change, ...]
    is_current: bool

    def lines(self) -> Iterator[str]:
        system, agent = self.layout.fact("image", "system"), self.layout.fact("agent", "version")
        about = f"{system or 'unknown system'}, agent {agent}, {self.layout.size:,} bytes"
        yield f"{'*' if self.is_current else ' '} {self.name}  {about}"
        yield from (f"      {change.text}" for change in self.changes)

    def document(self) -> dict[str, object]:
        layout = self.layout
        return {
            "version": self.name,
            "current": self.is_current,
            "published_at": published_at(self.name).isoformat(),
            "system": layout.fact("image", "system"),
            "iso": layout.iso,
            "iso_sha256": iso_digest(layout) or None,
            "kernels": kernels(layout),
            "agent": layout.fact("agent", "version"),
            "config_sha256": config_digest(layout) or None,
            "size": layout.size,
            "changes": [{"what": change.what, "text": change.text} for change in self.changes],
        }
