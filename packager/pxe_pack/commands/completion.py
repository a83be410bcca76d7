"""`pxe-pack completion SHELL`: shell completion, generated from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from pxe_pack import parser as own
from pxe_pack.commands.man import PROGRAMS, agent_parser
from pxe_pack.console import Console

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `completion`."""
    parser.description = (
        "Print a shell completion script. For bash, write it to ~/.local/share/bash-completion/completions/pxe-pack; "
        "for zsh, to _pxe-pack in a folder of $fpath; for fish, to ~/.config/fish/completions/pxe-pack.fish."
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.add_argument("program", choices=PROGRAMS, nargs="?", default="pxe-pack", help="the program")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the script."""
    text = script(arguments.shell, own.build_parser() if arguments.program == "pxe-pack" else agent_parser())
    console.result({"completion": text}, text.rstrip("\n"))
    return 0


def script(shell: str, tree: argparse.ArgumentParser) -> str:
    """The completion script for `shell`, of the program whose parser is `tree`."""
    for action in _actions(tree):
        if action.type is Path:
            names = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
            action.complete = names  # type: ignore[attr-defined]  # shtab reads this attribute
    return shtab.complete(tree, shell=shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of the parser and of its commands."""
    for action in own.actions(parser):
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for chosen in set(action.choices.values()):
                yield from _actions(chosen)
