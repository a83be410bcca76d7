"""`pxe-pack init`: writes a fetch.yaml to start from, with a comment on every key."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import example_config
from pxe_pack.console import Console
from pxe_pack.tools import InputError, command_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `init`."""
    parser.description = "Write a fetch.yaml to start from, with a comment on every key. Never overwrites a file."
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("fetch.yaml"), metavar="FILE", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write the file. Raises InputError if it exists or its folder does not, OSError if it cannot be written."""
    file: Path = arguments.file
    try:
        with file.open("xb") as new:
            new.write(example_config.text().encode())
    except FileExistsError:
        raise InputError(
            Problem(
                reference="init-exists",
                message=f"{file} already exists",
                hint="choose another name: pxe-pack init FILE",
            )
        ) from None
    except FileNotFoundError:
        raise InputError(
            Problem(
                reference="init-no-folder",
                message=f"cannot write {file.name}: the folder {file.parent} does not exist",
                hint=command_line("mkdir", "-p", file.parent),
            )
        ) from None
    text = f"Wrote {file}. Edit it, then run:  pxe-pack --agent-config {file} --dry-run"
    console.result({"output": str(file)}, text)
    return 0
