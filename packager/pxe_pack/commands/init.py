"""`pxe-pack init`: a first fetch.yaml, with a comment at every key."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import example_config
from pxe_pack.console import Console
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `init` takes."""
    parser.description = "Write a first fetch.yaml, with a comment at every key. A file that is there stays as it is."
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("fetch.yaml"), metavar="FILE", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write it. Raises InputError when there is something in its place, and OSError as the disk does."""
    file: Path = arguments.file
    try:
        with file.open("xb") as new:
            new.write(example_config.text().encode())
    except FileExistsError:
        raise InputError(
            Problem(
                reference="init-exists",
                message=f"{file} is there already, and stays as it is",
                hint="give another name: pxe-pack init FILE",
            )
        ) from None
    except FileNotFoundError:
        raise InputError(
            Problem(
                reference="init-no-folder",
                message=f"{file.parent}, where {file.name} goes, is not a folder",
                hint=f"mkdir -p {file.parent}",
            )
        ) from None
    text = f"{file} is written. Fill it in, then:  pxe-pack --agent-config {file} --dry-run"
    console.result({"output": str(file)}, text)
    return 0
