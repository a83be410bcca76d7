"""`pxe-pack completion SHELL`: what a shell needs to complete our command lines, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

from pxe_pack import parser as own
from pxe_pack.console import Console

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `completion` takes."""
    parser.description = (
        "Print a shell's completion. bash: write it to ~/.local/share/bash-completion/completions/pxe-pack; "
        "zsh: to _pxe-pack in a folder of $fpath; fish: to ~/.config/fish/completions/pxe-pack.fish."
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print it."""
    text = script(arguments.shell)
    console.result({"completion": text}, text.rstrip("\n"))
    return 0


def script(shell: str) -> str:
    """The completion of everything that the parser takes, for `shell`."""
    tree = own.build_parser()
    for action in _actions(tree):
        if action.type is Path:
            names = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
            action.complete = names  # type: ignore[attr-defined]  # shtab's own way of being told
    return shtab.complete(tree, shell=shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the parser and of its commands'."""
    for action in parser._actions:  # noqa: SLF001  argparse shows them nowhere else; shtab reads them too
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for chosen in set(action.choices.values()):
                yield from _actions(chosen)
