"""`pxe-pack show IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack import liveiso
from pxe_pack.console import Console, joined
from pxe_pack.show import document, lines, report_on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `show`."""
    parser.description = (
        "Show what an image or a layout contains: system, kernels, initrds, boot loaders, and what pxe-pack added. "
        "Everything is detected by content, not by file names. Never modifies its input."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="ISO, pxe-dir, pxe-tar, root filesystem or layout")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the report. Raises InputError if `image` is not an image that pxe-pack can read."""
    with liveiso.opened(arguments.image, boot_url="", step=console.step) as image:
        report = report_on(image)
        console.result(document(report), joined(lines(report)))
    return 0
