"""`pxe-pack relocate DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.layout.relocate import document, relocate, summary
from pxe_pack.parser import add_signing
from pxe_pack.trust.signing import given_signer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `relocate`."""
    parser.description = (
        "Change the URLs of a layout without repacking. Replaces boot_url and artifact_url in grub.cfg, the manifest "
        "and the checksums in one step. The image does not change."
    )
    parser.add_argument("layout", type=Path, metavar="DIR", help="the layout: pxe-pack's output folder")
    parser.add_argument("--boot-url", metavar="URL", help="new URL of the ISO (root=live:URL)")
    parser.add_argument("--artifact-url", metavar="URL", help="new base URL of the exported artifacts")
    parser.add_argument(
        "--base-url", metavar="URL", help="what nodes join relative URLs to, in place of defaults.base_url"
    )
    add_signing(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Relocate the layout. Raises InputError, WorkError and OSError."""
    moved = relocate(
        arguments.layout,
        boot_url=arguments.boot_url,
        artifact_url=arguments.artifact_url,
        base_url=arguments.base_url,
        signer=given_signer(arguments),
    )
    if moved.warnings:
        console.problems(moved.warnings)
    console.result(document(moved), summary(moved))
    return 0
