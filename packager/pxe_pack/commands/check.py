"""`pxe-pack check IMAGE|DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.check import Request, check, document, fails, text
from pxe_pack.console import Console
from pxe_pack.parser import size

FOUND = 3  # exit code if there are errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.description = (
        "Check whether an image can be packed and booted over PXE, or whether a layout can be served. Each problem has "
        "a severity, a reference (docs/check.md) and a remedy. Exits with code 3 if there are errors. Writes nothing."
    )
    parser.add_argument(
        "image",
        type=Path,
        nargs="?",
        metavar="IMAGE",
        help="ISO, pxe-dir, pxe-tar, root filesystem or layout; default: that of the configuration",
    )
    parser.add_argument("--agent-config", type=Path, metavar="FILE", help="also check this fetch.yaml")
    parser.add_argument("--agent", type=Path, metavar="DIR", help="check this frozen agent (default: the cached one)")
    parser.add_argument("--node-memory", type=size, metavar="SIZE", help="memory of a node, for example 4GiB")
    parser.add_argument("--offline", action="store_true", help="do not contact servers")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the checks and print the findings. Returns 3 if there are errors. Raises InputError."""
    request = Request(
        image=arguments.image,
        config=arguments.agent_config,
        agent=arguments.agent,
        node_memory=arguments.node_memory,
        offline=arguments.offline,
    )
    found = check(request, console=console)
    console.result(document(found), text(found))
    return FOUND if fails(found) else 0
