"""`pxe-pack relocate DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import console
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
    parser.add_argument("--json", action="store_true", help="tell it as JSON lines on stdout")
    parser.add_argument("--quiet", action="store_true", help="say nothing but problems and the result")


def run(arguments: argparse.Namespace) -> int:
    """Move the layout that `arguments` name. Raises InputError, WorkError and OSError."""
    shown = console(json_lines=arguments.json, quiet=arguments.quiet)
    moved = relocate(arguments.layout, boot_url=arguments.boot_url, artifact_url=arguments.artifact_url)
    shown.result(document(moved), summary(moved))
    return 0
