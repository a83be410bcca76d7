"""`pxe-pack show IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import liveiso
from pxe_pack.console import Console, joined
from pxe_pack.inject.packed_config import packed_text
from pxe_pack.show import document, lines, report_on
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `show`."""
    parser.description = (
        "Show what an image or a layout contains: system, kernels, initrds, boot loaders, and what pxe-pack added. "
        "Everything is detected by content, not by file names. Never modifies its input."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="ISO, pxe-dir, pxe-tar, root filesystem or layout")
    parser.add_argument(
        "--config",
        action="store_true",
        help="print the packed configuration, with the URLs and digests that nodes have",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the report. Raises InputError if `image` cannot be read, or has no configuration to print."""
    with liveiso.opened(arguments.image, boot_url="", step=console.step) as image:
        if arguments.config:
            text = packed_text(image)
            if not text:
                raise InputError(
                    Problem(
                        reference="show-no-config",
                        message=f"{arguments.image} has no packed configuration",
                        hint="pass pxe-pack's output folder, or the ISO in it",
                    )
                )
            console.result({"config": text}, text.rstrip("\n"))
            return 0
        report = report_on(image)
        console.result(document(report), joined(lines(report)))
    return 0
