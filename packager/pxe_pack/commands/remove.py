"""`pxe-pack remove IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.remove import document, remove, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `remove` takes."""
    parser.description = (
        "Take out what pxe-pack put in: of an ISO, which is only read, into another; of a layout into one that boots "
        "the image without the agent, and has no exported artifacts. All or nothing."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE|DIR", help="an ISO, or a layout: pxe-pack's output folder")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="the ISO or folder to write (default: the layout's own place)"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Take the payload out of what `arguments` name. Raises InputError, WorkError and OSError."""
    removed = remove(arguments.image, output=arguments.output, console=console)
    console.result(document(removed), summary(removed))
    return 0
