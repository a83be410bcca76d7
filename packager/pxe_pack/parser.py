"""The argument parser of `pxe-pack`; the help, the man page and the shell completions are generated from it.

Each command is a module; to add one, add a line to COMMANDS. A module is imported only when its command is used, so
that packing does not pay for the other commands. Packing is a command too; without one, `--agent-config FILE` packs.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from pxe_fetch import __version__
from pxe_fetch.contract import quantity
from pxe_fetch.contract.problem import RuleError, suggestion
from pxe_pack.choices import CHAINS, COMPRESSORS, INJECTORS, VERIFY_ISO
from pxe_pack.console import Console

USAGE = ("pack FILE [options]", "--agent-config FILE [options]", "COMMAND [options]")
_DESCRIPTION = """\
Put the pxe-fetch agent and its configuration into a LiveOS image and export a PXE layout that is ready to serve. Every
key in the configuration's `pack:` section is also a flag; flags take precedence.
"""
EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        1: "failed after starting",
        2: "invalid input: nothing was started",
        3: "a check found errors, or nodes have failed",
        4: "a server that was started has ended",
        130: "interrupted",
    }
)


class Subcommand(Protocol):
    """A command: a module with these two functions."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments and its description to `parser`."""

    def run(self, arguments: argparse.Namespace, console: Console) -> int:
        """Run the command and return the exit code. Raises InputError, WorkError and OSError."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: a one-line summary, and the module that implements it."""

    summary: str
    module: str

    def load(self) -> Subcommand:
        """Import the module and return it."""
        return cast("Subcommand", import_module(self.module))


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "boot": Command("boot a layout in a virtual machine", "pxe_pack.boot.command"),
        "check": Command("check an image or a layout for problems", "pxe_pack.commands.check"),
        "completion": Command("print a shell completion script", "pxe_pack.commands.completion"),
        "freeze": Command("freeze the agent into a folder", "pxe_pack.commands.freeze"),
        "init": Command("write a commented fetch.yaml to start from", "pxe_pack.commands.init"),
        "lock": Command("pin artifacts that have no digest", "pxe_pack.commands.lock"),
        "man": Command("print the manual page", "pxe_pack.commands.man"),
        "mirror": Command("download everything that a configuration fetches", "pxe_pack.commands.mirror"),
        "nodes": Command("list the nodes that a collector knows", "pxe_pack.commands.nodes"),
        "pack": Command("pack an image and export a PXE layout", "pxe_pack.commands.pack"),
        "payload": Command("write the payload for a program that builds images", "pxe_pack.commands.payload"),
        "pin": Command("make nodes fetch a configuration by URL, pinned or signed", "pxe_pack.commands.pin"),
        "publish": Command("add a layout to published versions", "pxe_pack.commands.publish"),
        "pull": Command("get a layout from a container registry", "pxe_pack.commands.pull"),
        "push": Command("put a layout or a folder into a container registry", "pxe_pack.commands.push"),
        "relocate": Command("change the URLs of a layout without repacking", "pxe_pack.commands.relocate"),
        "remove": Command("remove the agent from an image or a layout", "pxe_pack.commands.remove"),
        "rollback": Command("serve an earlier version of a published layout", "pxe_pack.commands.rollback"),
        "schema": Command("print the JSON Schema of fetch.yaml", "pxe_pack.commands.schema"),
        "serve": Command("serve a layout until Ctrl-C", "pxe_pack.commands.serve"),
        "show": Command("show the contents of an image or a layout", "pxe_pack.commands.show"),
        "snippet": Command("print a server or cache configuration for a layout", "pxe_pack.commands.snippet"),
        "versions": Command("list the versions of a published layout", "pxe_pack.commands.versions"),
    }
)


def build_parser(commands: Collection[str] = frozenset(COMMANDS)) -> argparse.ArgumentParser:
    """The parser for the whole command line. Only the `commands` are loaded; the others are just names in the help."""
    parser = argparse.ArgumentParser(
        prog="pxe-pack",
        usage="\n       ".join(f"pxe-pack {usage}" for usage in USAGE),
        description=_DESCRIPTION,
        epilog=f"exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}",
        allow_abbrev=False,  # a script's `--out` must not change its meaning with the next flag
        formatter_class=WholeWords,
    )
    parser.add_argument("--version", action="version", version=f"pxe-pack {__version__}")
    add_packing(parser, default=None)
    _add_output_options(parser, default=0)
    choices = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", prog="pxe-pack")
    for name, command in COMMANDS.items():
        chosen = choices.add_parser(name, help=command.summary, allow_abbrev=False, formatter_class=WholeWords)
        if name in commands:
            subcommand = command.load()
            subcommand.add_arguments(chosen)
            chosen.set_defaults(run=subcommand.run)
            # SUPPRESS keeps the value of a flag given before the command.
            _add_output_options(chosen, default=argparse.SUPPRESS)
    return parser


class WholeWords(argparse.HelpFormatter):
    """Wraps lines between words only: argparse also breaks `pxe-dir` and `--boot-url` at their hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))


SIGNING: Mapping[str, str] = MappingProxyType(
    {
        "--secure-boot-key": "sign the boot with this private key",
        "--secure-boot-cert": "the certificate of --secure-boot-key",
        "--secure-boot-passphrase": "a file with the passphrase of --secure-boot-key",
    }
)


def add_signing(parser: argparse.ArgumentParser) -> None:
    """Add the flags for signing a layout's boot again."""
    group = parser.add_argument_group("signed boot")
    for flag, text in SIGNING.items():
        group.add_argument(flag, help=text, type=Path, metavar="FILE")


PACKING = "pack_"  # prefix of the dest of packing's flags: a command may have a flag of the same name


def add_packing(parser: argparse.ArgumentParser, *, default: object) -> None:
    """Add the flags of packing, each with this default."""
    group = parser.add_argument_group("packing")

    def add(flag: str, text: str, **options: object) -> None:
        dest = PACKING + flag.removeprefix("--").replace("-", "_")
        group.add_argument(flag, dest=dest, help=text, default=default, **options)  # type: ignore[arg-type]  # of several types

    add("--agent-config", "the fetch.yaml to pack", type=Path, metavar="FILE")
    add("--image", "LiveOS image: ISO, pxe-dir, pxe-tar or root filesystem (never modified)", type=Path, metavar="FILE")
    add("--output", "folder to write; an earlier layout there is replaced", type=Path, metavar="DIR")
    add("--format", "write --output as a folder or as a tar archive (default: dir)", choices=("dir", "tar"))
    add("--publish", "instead of --output: add the layout to this folder's versions", type=Path, metavar="DIR")
    add("--keep", "versions that --publish keeps (default: 5)", type=count, metavar="N")
    add("--boot-url", "URL nodes boot the ISO from (root=live:URL)", metavar="URL")
    add("--artifact-url", "base URL of the artifacts given with `source:`", metavar="URL")
    add("--inject", "how to put the agent into the image (default: auto)", choices=INJECTORS)
    add("--compressor", "recompress the root filesystem with this (rootfs only)", choices=COMPRESSORS)
    add("--level", "compression level (1 to 9, zstd to 22)", type=int, choices=range(1, 23), metavar="N")
    add("--verify-iso", "make nodes verify the ISO they download (default: auto)", choices=VERIFY_ISO)
    add("--node-memory", "memory of the smallest node, for example 4GiB", type=size, metavar="SIZE")
    add("--agent", "use this frozen agent (see `pxe-pack freeze`)", type=Path, metavar="DIR")
    add("--boot-loader", "use shim and GRUB from this folder", type=Path, metavar="DIR")
    add("--report", "URL that nodes report to, with a token; `auto`: the layout's server", metavar="URL")
    add("--leave-out", "do not serve the image's files that match this; repeatable", action="append", metavar="GLOB")
    for flag, text in SIGNING.items():
        add(flag, text, type=Path, metavar="FILE")
    add("--secure-boot-chain", "what starts the signed program: firmware (db) or shim (default: db)", choices=CHAINS)
    add(
        "--trust",
        "put this minisign public key into the image; repeatable",
        action="append",
        type=Path,
        metavar="FILE",
    )
    add("--input-digest", "hash the image as well, and check it against IMAGE.sha256", action="store_true")
    add("--dry-run", "print the plan and exit", action="store_true")


def size(written: str) -> int:
    """A size on the command line in bytes. Raises argparse.ArgumentTypeError."""
    try:
        return quantity.size(written)
    except RuleError as error:
        raise argparse.ArgumentTypeError(f"{written!r} {error.message}: {error.label}") from error


def count(written: str) -> int:
    """A number of at least 1 on the command line. Raises argparse.ArgumentTypeError."""
    if not written.isascii() or not written.isdigit() or int(written) < 1:
        raise argparse.ArgumentTypeError(f"{written!r} is not a number of at least 1")
    return int(written)


def duration(written: str) -> float:
    """A time of more than none on the command line, in seconds: 15m, or 900. Raises argparse.ArgumentTypeError."""
    try:
        seconds = quantity.duration(f"{written}s" if written.isdecimal() else written)
    except RuleError as error:
        raise argparse.ArgumentTypeError(f"{written!r} {error.message}: {error.label}") from error
    if not seconds:
        raise argparse.ArgumentTypeError(f"{written!r} is not a valid time: it must be more than 0")
    return seconds


def port(written: str) -> int:
    """A TCP port on the command line. Raises argparse.ArgumentTypeError."""
    number = count(written)
    if number > 65535:  # noqa: PLR2004  16 bits
        raise argparse.ArgumentTypeError(f"{written!r} is not a port: at most 65535")
    return number


def _add_output_options(parser: argparse.ArgumentParser, *, default: object) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", default=default, help="print JSON lines on stdout")
    verbosity = group.add_mutually_exclusive_group()
    verbosity.add_argument(
        *("-v", "--verbose"),
        action="count",
        default=default,
        help="log decisions and the commands that are run; twice: their output too",
    )
    verbosity.add_argument(
        "-q", "--quiet", action="store_true", default=default, help="print only problems and the result"
    )


def commands_in(arguments: Collection[str]) -> frozenset[str]:
    """The commands named in `arguments`: those that must be loaded before parsing."""
    return frozenset(COMMANDS).intersection(arguments)


def misplaced_flags(arguments: argparse.Namespace) -> list[str]:
    """Packing flags that were given although `arguments` name another command."""
    given = [name for name, value in vars(arguments).items() if name.startswith(PACKING) and value]
    return (
        [f"--{name.removeprefix(PACKING).replace('_', '-')}" for name in given]
        if arguments.command not in {None, "pack"}
        else []
    )


def unknown_word(tree: argparse.ArgumentParser, words: Iterable[str]) -> tuple[argparse.ArgumentParser, str] | None:
    """The first of `words` that is neither a command nor a flag: the parser it was for, and what to tell.

    argparse takes the value of a misspelt flag for the command, and then complains of that. Only the flags of commands
    that are loaded are known. None if there is no such word.
    """
    commands = next(action.choices for action in actions(tree) if isinstance(action.choices, dict))
    parser, flags, command = tree, _flags(tree), ""
    packing = flags
    remaining = iter(words)
    for word in remaining:
        flag, equals, _ = word.partition("=")
        if word == "--":
            break
        if flag.startswith("--") and " " not in flag and flag not in flags:
            elsewhere = {name for name, tree_of in commands.items() if flag in _flags(tree_of)}
            hint = _misplaced(command, elsewhere, is_packing=flag in packing) or suggestion(flag, flags)
            return parser, _with_hint(f"unrecognized arguments: {word}", hint)
        if flag in flags:
            if flags[flag] and not equals:
                next(remaining, None)  # its value, which may look like a command
        elif not command and not word.startswith("-"):
            if word not in COMMANDS:
                return parser, _with_hint(f"argument COMMAND: invalid choice: {word!r}", _meant(word))
            command, parser = word, commands[word]
            flags = _flags(parser)
    return None


def actions(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    """The arguments that were added to `parser`."""
    return parser._actions  # noqa: SLF001  argparse has no public way to list them


def _flags(parser: argparse.ArgumentParser) -> dict[str, bool]:
    """The flags of `parser`, and whether each takes a value."""
    return {flag: action.nargs != 0 for action in actions(parser) for flag in action.option_strings}


def _meant(word: str) -> str:
    """What to do instead of giving `word` as a command."""
    if word.endswith((".yaml", ".yml")):
        return f"to pack it: pxe-pack pack {word}"
    return suggestion(word, COMMANDS) or f"choose from {', '.join(COMMANDS)}"


def _misplaced(command: str, elsewhere: Collection[str], *, is_packing: bool) -> str:
    """Where a flag belongs that is not one of `command` (empty: of packing); empty if it is known nowhere."""
    if command:
        return "this is for packing only" if is_packing else ""
    return f"put it after {' or '.join(sorted(elsewhere))}" if elsewhere else ""


def _with_hint(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message
