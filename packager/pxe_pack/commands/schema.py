"""`pxe-pack schema`: the form of fetch.yaml as a JSON Schema."""

from __future__ import annotations

import argparse
import json

from pxe_pack.console import Console
from pxe_pack.schema import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `schema` takes: nothing."""
    parser.description = (
        "Print the JSON Schema (draft-07) of fetch.yaml, for editors that complete and check while one writes. "
        "`pxe-fetch check` finds more: what only shows when two values are compared."
    )


def run(_arguments: argparse.Namespace, console: Console) -> int:
    """Print it."""
    console.result({"schema": schema()}, text().rstrip("\n"))
    return 0


def text() -> str:
    """The schema as it is printed, and published in the package."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
