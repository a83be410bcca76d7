"""`pxe-pack pull REFERENCE -o DIR`: get a layout back from a container registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract.quantity import amount, count
from pxe_pack.console import Console, joined
from pxe_pack.registry import target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pull`."""
    parser.description = (
        "Get a layout from a container registry. Every file is verified, and the folder appears only once it is "
        "complete; an earlier layout there is replaced."
    )
    parser.add_argument("reference", type=target.reference, metavar="REFERENCE", help="as oci://registry.lan/repo:tag")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    target.add_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Pull it. Raises InputError, WorkError and OSError."""
    from pxe_pack.registry.pull import pull

    repository = target.repository(arguments.reference, arguments)
    with target.answered(repository):
        layout, digest = pull(repository, arguments.output.absolute(), console=console)
    reference = target.pinned(arguments.reference, digest)
    document = {"reference": reference, "digest": digest, "output": str(layout.root)}
    size = f"{count(len(layout.files), 'file')}, {amount(layout.size)}"
    console.result(document, joined([f"{layout.root} is {reference} now ({size})"]))
    return 0
