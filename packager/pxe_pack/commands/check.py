"""`pxe-pack check IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract import quantity
from pxe_pack.check import Request, check, document, fails, text
from pxe_pack.console import Console

FOUND = 3  # the exit code when something will fail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `check` takes."""
    parser.description = (
        "Find everything that will go wrong when an image is packed and booted over PXE, or a layout is served: each "
        "with its severity, a reference (docs/check.md), and what to do. Exit code 3 when something will fail. "
        "Nothing is written."
    )
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="an ISO, a pxe-dir, a pxe-tar, a root filesystem, or a layout"
    )
    parser.add_argument("--agent-config", type=Path, metavar="FILE", help="the fetch.yaml that goes with it")
    parser.add_argument("--agent", type=Path, metavar="DIR", help="the frozen agent that will go in")
    parser.add_argument("--node-memory", type=_size, metavar="SIZE", help="what memory nodes have, as in 4GiB")
    parser.add_argument("--offline", action="store_true", help="ask no server")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check it; gives 3 when something will fail. Raises InputError when there is nothing to check."""
    request = Request(
        image=arguments.image,
        config=arguments.agent_config,
        agent=arguments.agent,
        node_memory=arguments.node_memory,
        offline=arguments.offline,
    )
    found = check(request, console=console)
    console.result(document(request, found), text(request, found))
    return FOUND if fails(found) else 0


def _size(written: str) -> int:
    try:
        return quantity.size(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
