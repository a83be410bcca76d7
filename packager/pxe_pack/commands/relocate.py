"""`pxe-pack relocate DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.layout.relocate import document, relocate, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `relocate` takes."""
    parser.description = (
        "Have a layout served from elsewhere, without packing again: its boot_url and artifact_url are exchanged in "
        "grub.cfg, the manifest and the checksums, all or nothing. The image stays as it is."
    )
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument("--boot-url", metavar="URL", help="where nodes will find the ISO: root=live:URL")
    parser.add_argument("--artifact-url", metavar="URL", help="where they will find the exported artifacts: a folder")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Move the layout that `arguments` name. Raises InputError, WorkError and OSError."""
    moved = relocate(arguments.layout, boot_url=arguments.boot_url, artifact_url=arguments.artifact_url)
    console.result(document(moved), summary(moved))
    return 0
