"""`pxe-pack rollback DIR [VERSION]`: serve an earlier version of a published layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console, joined
from pxe_pack.layout.published import read_published
from pxe_pack.publish import roll_back


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollback`."""
    parser.description = (
        "Serve an earlier version of a layout that was published with `pack --publish DIR`. DIR/current switches to it "
        "in one step; servers need no restart."
    )
    parser.add_argument("published", type=Path, metavar="DIR", help="the folder with the versions")
    parser.add_argument(
        "version",
        nargs="?",
        metavar="VERSION",
        help="a version's name or part of it (default: the previous one)",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Go back. Raises InputError if there is no such version, or if it is not complete."""
    published = read_published(arguments.published)
    before, current = roll_back(published, arguments.version)
    document = {"published": str(published.root), "before": before, "current": current}
    console.result(document, joined([f"{published.current_link} is {current} now; it was {before or 'none'}"]))
    return 0
