"""`pxe-pack publish LAYOUT DIR`: add a layout that was packed before to the versions in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console, joined
from pxe_pack.layout.layout import VERSIONS, Layout
from pxe_pack.parser import count
from pxe_pack.publish import KEEP, publish_layout
from pxe_pack.real_path import real_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `publish`."""
    parser.description = (
        "Copy a layout, for example after `relocate` or `pin`, into a folder of versions, and make it the current one, "
        "as `pack --publish DIR` does with a new layout."
    )
    parser.add_argument("layout", type=Path, metavar="LAYOUT", help="pxe-pack's output folder")
    parser.add_argument("published", type=Path, metavar="DIR", help="the folder with the versions")
    parser.add_argument("--keep", type=count, default=KEEP, metavar="N", help="versions to keep (default: %(default)s)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Publish it. Raises InputError, WorkError and OSError."""
    layout = Layout.read(real_path(arguments.layout))
    version = publish_layout(layout, real_path(arguments.published) / VERSIONS, keep=arguments.keep)
    root = version.parent.parent
    document = {"published": str(root), "current": version.name}
    console.result(document, joined([f"{root}/current is {version.name} now"]))
    return 0
