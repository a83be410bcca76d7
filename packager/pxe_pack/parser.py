"""What `pxe-pack` takes on its command line: one tree, of which the help, the man page and the completions are made.

A command is a module; adding one is a line in COMMANDS. Modules are imported when they are used, for packing is not to
pay for the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from pxe_fetch import __version__
from pxe_fetch.contract.model import COMPRESSORS
from pxe_pack.console import Console
from pxe_pack.inject import INJECTORS

_DESCRIPTION = """\
Put the pxe-fetch agent and its configuration into a LiveOS image, and export a layout that is ready to be served for
PXE boots. Every key of the configuration's `pack:` section is a flag too, and flags win.
"""
EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        1: "begun and failed",
        2: "bad input: nothing was begun",
        3: "a check found errors",
        130: "interrupted",
    }
)


class Subcommand(Protocol):
    """A command beside packing: a module with these two functions."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes, and describe it."""

    def run(self, arguments: argparse.Namespace, console: Console) -> int:
        """Do it; gives the exit code. Raises InputError, WorkError and OSError."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what it does in a few words, and the module that does it."""

    summary: str
    module: str

    def load(self) -> Subcommand:
        """The module."""
        return cast("Subcommand", import_module(self.module))


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "boot": Command("boot a layout in a virtual machine", "pxe_pack.boot.command"),
        "check": Command("find all that will go wrong with an image or a layout", "pxe_pack.commands.check"),
        "completion": Command("print a shell's completion of all this", "pxe_pack.commands.completion"),
        "init": Command("write a first fetch.yaml", "pxe_pack.commands.init"),
        "man": Command("print the manual page", "pxe_pack.commands.man"),
        "relocate": Command("have a layout served from elsewhere, without packing again", "pxe_pack.commands.relocate"),
        "remove": Command("take out of an image or a layout what pxe-pack put in", "pxe_pack.commands.remove"),
        "schema": Command("print the JSON Schema of fetch.yaml", "pxe_pack.commands.schema"),
        "show": Command("show what an image is and has", "pxe_pack.commands.show"),
        "snippet": Command("print the configuration of a server for a layout", "pxe_pack.commands.snippet"),
    }
)


def tree(commands: Collection[str] = frozenset(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of everything. Only `commands` can be parsed: of the others it knows no more than the names."""
    parser = argparse.ArgumentParser(
        prog="pxe-pack",
        usage="pxe-pack --agent-config FILE [options]\n       pxe-pack COMMAND [options]",
        description=_DESCRIPTION,
        epilog=f"exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}",
        allow_abbrev=False,  # a script's `--out` must not change its meaning with the next flag
    )
    parser.add_argument("--version", action="version", version=f"pxe-pack {__version__}")
    _add_packing(parser)
    _add_telling(parser, default=0)
    choices = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", prog="pxe-pack")
    for name, command in COMMANDS.items():
        chosen = choices.add_parser(name, help=command.summary, allow_abbrev=False)
        if name in commands:
            subcommand = command.load()
            subcommand.add_arguments(chosen)
            chosen.set_defaults(run=subcommand.run)
            # Said before the command it stands, so that a command that was not told leaves it.
            _add_telling(chosen, default=argparse.SUPPRESS)
    return parser


PACKING = "pack_"  # before the names of packing's arguments: a command may have one of the same name


def _add_packing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("packing")

    def add(flag: str, told: str, **options: object) -> None:
        dest = PACKING + flag.removeprefix("--").replace("-", "_")
        group.add_argument(flag, dest=dest, help=told, **options)  # type: ignore[arg-type]  # of several types

    add("--agent-config", "the fetch.yaml", type=Path, metavar="FILE")
    add("--image", "the LiveOS: an ISO, a pxe-dir, a pxe-tar, a root filesystem; only read", type=Path, metavar="FILE")
    add("--output", "the folder to write; a former one is replaced", type=Path, metavar="DIR")
    add("--format", "what --output is: a folder, or a tar archive (default: dir)", choices=("dir", "tar"))
    add("--boot-url", "where nodes will find the ISO: root=live:URL", metavar="URL")
    add("--artifact-url", "where they will find artifacts given by `source:`", metavar="URL")
    add("--inject", "the way into the image (default: auto)", choices=("auto", *INJECTORS))
    add("--compressor", "compress the root filesystem anew, by this (rootfs)", choices=COMPRESSORS)
    add("--level", "at this level (zstd: 1 to 22)", type=int, choices=range(1, 23), metavar="N")
    add("--agent", "a frozen agent to use, instead of freezing one", type=Path, metavar="DIR")
    add("--boot-loader", "shim and GRUB, instead of the image's own", type=Path, metavar="DIR")
    add("--dry-run", "show what would be done, and stop", action="store_true")


def _add_telling(parser: argparse.ArgumentParser, *, default: object) -> None:
    group = parser.add_argument_group("what is told")
    group.add_argument("--json", action="store_true", default=default, help="tell it as JSON lines on stdout")
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument(
        *("-v", "--verbose"),
        action="count",
        default=default,
        help="tell why, and which outside programs are run; twice: what they say, too",
    )
    loudness.add_argument(
        "-q", "--quiet", action="store_true", default=default, help="say nothing but problems and the result"
    )


def named(arguments: Collection[str]) -> frozenset[str]:
    """The commands that a command line may mean: those that have to be loaded before it is parsed."""
    return frozenset(COMMANDS).intersection(arguments)


def out_of_place(arguments: argparse.Namespace) -> list[str]:
    """The flags of packing that were given to a command."""
    given = [name for name, value in vars(arguments).items() if name.startswith(PACKING) and value]
    return [f"--{name.removeprefix(PACKING).replace('_', '-')}" for name in given] if arguments.command else []
