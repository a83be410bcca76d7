"""`pxe-pack schema`: prints the JSON Schema of fetch.yaml."""

from __future__ import annotations

import argparse
import json

from pxe_pack.console import Console
from pxe_pack.schema import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Set the description; `schema` has no arguments."""
    parser.description = (
        "Print the JSON Schema (draft-07) of fetch.yaml, for editors with completion and validation. "
        "`pxe-fetch check` also checks rules about several values."
    )


def run(_arguments: argparse.Namespace, console: Console) -> int:
    """Print the schema."""
    console.result({"schema": schema()}, text().rstrip("\n"))
    return 0


def text() -> str:
    """The schema as formatted JSON text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
