"""The command line: the only reader of argv, and the one place where errors become exit codes.

0 done, 1 begun and failed, 2 bad input (nothing was changed), 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Protocol

from pxe_fetch import __version__
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.validate import COMPRESSORS
from pxe_pack.console import Console, console
from pxe_pack.inject import INJECTORS
from pxe_pack.pack import pack, result_document, show_plan, summary
from pxe_pack.plan import Options
from pxe_pack.tools import InputError, WorkError

FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM

_DESCRIPTION = """\
Put the pxe-fetch agent and its configuration into a LiveOS ISO, and export a layout that is ready to be served for
PXE boots. Every key of the configuration's `pack:` section is a flag too, and flags win.
"""
_EPILOG = """\
further commands: `pxe-pack COMMAND --help`
{commands}

exit codes: 0 done, 1 begun and failed, 2 bad input, 130 interrupted
"""


class Subcommand(Protocol):
    """A command beside packing: a module with these two functions."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; gives the exit code. Raises as `main` expects."""


def _boot() -> Subcommand:
    from pxe_pack.boot import command

    return command


def _init() -> Subcommand:
    from pxe_pack.commands import init

    return init


def _relocate() -> Subcommand:
    from pxe_pack.commands import relocate

    return relocate


def _schema() -> Subcommand:
    from pxe_pack.commands import schema

    return schema


def _show() -> Subcommand:
    from pxe_pack.commands import show

    return show


# Name -> what it does, and the module that does it: imported when it is used, for packing is not to pay for it.
SUBCOMMANDS: Mapping[str, tuple[str, Callable[[], Subcommand]]] = MappingProxyType(
    {
        "boot": ("boot a layout in a virtual machine", _boot),
        "init": ("write a first fetch.yaml", _init),
        "relocate": ("have a layout served from elsewhere, without packing again", _relocate),
        "schema": ("print the JSON Schema of fetch.yaml", _schema),
        "show": ("show what an image is and has", _show),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (sys.argv) names; gives the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    json_lines = "--json" in arguments
    shown = console(json_lines=json_lines)
    try:
        return _dispatch(arguments)
    except InputError as error:
        shown.problems(error.problems)
        return BAD_INPUT
    except WorkError as error:
        shown.problems(error.problems)
        return FAILED
    except KeyboardInterrupt:
        shown.say("interrupted")
        return INTERRUPTED
    except OSError as error:
        shown.problems([_system_problem(error)])
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in SUBCOMMANDS:
        _, load = SUBCOMMANDS[arguments[0]]
        subcommand = load()
        parser = argparse.ArgumentParser(prog=f"pxe-pack {arguments[0]}")
        subcommand.add_arguments(parser)
        return subcommand.run(parser.parse_args(arguments[1:]))
    return _pack(_parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  pxe-pack {name:8} {told}" for name, (told, _) in SUBCOMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="pxe-pack",
        usage="pxe-pack --agent-config FILE [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(commands=commands),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--agent-config", type=Path, required=True, metavar="FILE", help="the fetch.yaml")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the LiveOS ISO; it is only read")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the folder to write; a former one is replaced")
    parser.add_argument("--boot-url", metavar="URL", help="where nodes will find the ISO: root=live:URL")
    parser.add_argument("--artifact-url", metavar="URL", help="where they will find artifacts given by `source:`")
    parser.add_argument("--inject", choices=("auto", *INJECTORS), help="the way into the image (default: auto)")
    parser.add_argument("--compressor", choices=COMPRESSORS, help="compress the root filesystem anew, by this (rootfs)")
    parser.add_argument("--level", type=int, choices=range(1, 23), metavar="N", help="at this level (zstd: 1 to 22)")
    parser.add_argument("--agent", type=Path, metavar="DIR", help="a frozen agent to use, instead of freezing one")
    parser.add_argument("--boot-loader", type=Path, metavar="DIR", help="shim and GRUB, instead of the image's own")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and stop")
    parser.add_argument("--json", action="store_true", help="tell it as JSON lines on stdout")
    parser.add_argument("--quiet", action="store_true", help="say nothing but problems and the result")
    parser.add_argument("--version", action="version", version=f"pxe-pack {__version__}")
    return parser


def _pack(arguments: argparse.Namespace) -> int:
    options = Options(
        config=arguments.agent_config,
        image=arguments.image,
        output=arguments.output,
        boot_url=arguments.boot_url,
        artifact_url=arguments.artifact_url,
        inject=arguments.inject,
        compressor=arguments.compressor,
        level=arguments.level,
        agent=arguments.agent,
        boot_loader=arguments.boot_loader,
    )
    shown = console(json_lines=arguments.json, quiet=arguments.quiet)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        if arguments.dry_run:
            show_plan(options, console=shown)
        else:
            _report(options, shown)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _report(options: Options, shown: Console) -> None:
    packed = pack(options, console=shown)
    shown.result(result_document(packed), summary(packed))


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C would end us: with the temporary files removed."""
    sys.exit(TERMINATED)


def _system_problem(error: OSError) -> Problem:
    """A failure of the machine, as a sentence."""
    place = f"{error.filename}: " if error.filename else ""
    hint = (
        "free some space, or choose a folder on another file system by --output" if error.errno == errno.ENOSPC else ""
    )
    return Problem(reference="system-error", message=f"{place}{error.strerror or error}", hint=hint)
