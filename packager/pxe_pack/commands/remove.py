"""`pxe-pack remove IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.parser import add_signing
from pxe_pack.remove import document, remove, summary
from pxe_pack.trust.signing import given_signer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `remove`."""
    parser.description = (
        "Remove what pxe-pack added. From an ISO, write a new ISO without the agent. From a layout, also remove the "
        "exported artifacts; it then boots the image without the agent. If it fails, nothing has changed."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE|DIR", help="an ISO, or a layout: pxe-pack's output folder")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="ISO or folder to write (default: replace the layout)"
    )
    add_signing(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Remove the payload. Raises InputError, WorkError and OSError."""
    removed = remove(arguments.image, output=arguments.output, signer=given_signer(arguments), console=console)
    console.result(document(removed), summary(removed))
    return 0
