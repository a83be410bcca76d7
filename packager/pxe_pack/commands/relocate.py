"""`pxe-pack relocate DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.layout.relocate import document, relocate, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `relocate`."""
    parser.description = (
        "Change the URLs of a layout without repacking. Replaces boot_url and artifact_url in grub.cfg, the manifest "
        "and the checksums in one step. The image does not change."
    )
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument("--boot-url", metavar="URL", help="new URL of the ISO (root=live:URL)")
    parser.add_argument("--artifact-url", metavar="URL", help="new base URL of the exported artifacts")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Relocate the layout. Raises InputError, WorkError and OSError."""
    moved = relocate(arguments.layout, boot_url=arguments.boot_url, artifact_url=arguments.artifact_url)
    if moved.warnings:
        console.problems(moved.warnings)
    console.result(document(moved), summary(moved))
    return 0
