"""`pxe-pack show IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.image import liveos
from pxe_pack.show import document, lines, report_on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `show` takes."""
    parser.description = "Show what an image, or a layout, is and has: by its content, not by names. It is only read."
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="an ISO, a pxe-dir, a pxe-tar, a root filesystem, or a layout"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Show it. Raises InputError when it is nothing that pxe-pack reads."""
    with liveos.opened(arguments.image, boot_url="", told=console.step) as image:
        report = report_on(image)
        console.result(document(report), "\n".join(lines(report)))
    return 0
