"""`pxe-pack mirror FILE -o DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.mirror.update import document, mirror, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirror`."""
    parser.description = (
        "Download everything that a configuration fetches into a folder, for sites without internet access, and write "
        "a configuration that fetches from that folder. Each file is verified by its digest. Files that are already "
        "there and right are kept, and interrupted downloads are resumed."
    )
    parser.add_argument("config", type=Path, metavar="FILE", help="the fetch.yaml")
    parser.add_argument(
        "-o", "--output", type=_folder, required=True, metavar="DIR", help="the folder, to serve by HTTP"
    )
    parser.add_argument("--base-url", metavar="URL", help="where nodes will find the folder (default: relative URLs)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Mirror the configuration. Raises InputError, WorkError and OSError."""
    done = mirror(arguments.config, output=arguments.output, base_url=arguments.base_url, console=console)
    console.result(document(done), summary(done))
    return 0


def _folder(text: str) -> Path:
    """A path on the command line. Raises argparse.ArgumentTypeError if it is a URL."""
    if "://" in text:
        place = text if text.startswith("oci://") else "oci://…"
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder: mirror into one, then `pxe-pack push DIR {place}`")
    return Path(text)
