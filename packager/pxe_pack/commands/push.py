"""`pxe-pack push SOURCE REFERENCE`: put a layout or a folder into a container registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract.quantity import amount, count
from pxe_pack.console import Console, joined
from pxe_pack.registry import target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `push`."""
    parser.description = (
        "Put a layout, a folder or a file into a container registry, as an artifact with a layer for each file, and "
        "print the reference with its digest, for an artifact's `oci:`. Large files get a list of chunk digests. Files "
        "that the registry already has are not sent again."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a layout, a folder, or a file")
    parser.add_argument("reference", type=target.tagged, metavar="REFERENCE", help="as oci://registry.lan/repo:tag")
    target.add_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Push it. Raises InputError, WorkError and OSError."""
    from pxe_pack.registry.push import push

    repository = target.repository(arguments.reference, arguments)
    with target.answered(repository):
        pushed = push(arguments.source, repository, console=console)
    reference = target.pinned(arguments.reference, pushed.digest)
    files = [
        {"title": blob.title, "size": blob.counted.size, "sha256": blob.counted.sha256, "chunk_size": blob.chunk_size}
        for blob in pushed.blobs
    ]
    console.say(f"{count(len(files), 'file')}, {amount(pushed.sent)} sent")
    console.result({"reference": reference, "digest": pushed.digest, "files": files}, joined([reference]))
    return 0
