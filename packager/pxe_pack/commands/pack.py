"""`pxe-pack pack FILE` on the command line: the same as `pxe-pack --agent-config FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack import cli
from pxe_pack.console import Console
from pxe_pack.parser import add_packing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pack`."""
    parser.description = (
        "Put the agent and its configuration into a LiveOS image, and export a PXE layout that is ready to serve. "
        "Every key in the configuration's `pack:` section is also a flag; flags take precedence."
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the fetch.yaml to pack, or --agent-config")
    add_packing(parser, default=argparse.SUPPRESS)  # which keeps the value of a flag given before the command


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Pack. Raises InputError, WorkError and OSError."""
    return cli.pack_as(arguments, console)
