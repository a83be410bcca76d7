"""The command line of the image builder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from liveos import shapes
from liveos.cache import Cache, files_in
from liveos.programs import BuildError


def main(argv: Sequence[str]) -> int:
    """Build the image that argv asks for; gives the exit code: 0 built, 1 could not (said on stderr)."""
    parser = argparse.ArgumentParser(
        prog="build",
        description="Build a LiveOS image from Debian's packages, in the layout of Azure Linux Image Customizer.",
        epilog="What takes long is kept in the cache; delete that folder to start afresh.",
    )
    parser.add_argument("--shape", required=True, choices=sorted(shapes.SHAPES), help="which of the images to build")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="where to write it")
    parser.add_argument("--cache", type=Path, metavar="DIR", help=f"default: {Cache.default_folder()}")
    arguments = parser.parse_args(argv)
    try:
        shapes.build(shapes.SHAPES[arguments.shape], arguments.output, cache=Cache(arguments.cache), say=_say)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or arguments.output}: {error.strerror}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in files_in(arguments.output))
    _say(f"{arguments.output}: {size / 1e6:.1f} MB")
    return 0


def _say(line: str) -> None:
    print(f"liveos: {line}", file=sys.stderr, flush=True)
