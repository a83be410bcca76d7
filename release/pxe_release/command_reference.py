"""The reference of pxe-pack's commands as Markdown, from its parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator

from pxe_pack import parser

_MOST = 10  # choices that are listed
_OUTPUT = {"--json", "--verbose", "--quiet", "--help"}  # of every command: told once


def page() -> str:
    """The page."""
    tree = parser.build_parser()
    commands = next(action.choices for action in parser.actions(tree) if isinstance(action.choices, dict))
    lines = [
        "# Commands",
        "",
        "`pxe-pack COMMAND --help` prints the same.",
        "",
        *(f"    pxe-pack {usage}" for usage in parser.USAGE),
        "",
        "Every command has these flags:",
        "",
        *_table(tree, only=_OUTPUT),
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in parser.EXIT_CODES.items()),
        "",
    ]
    for name in parser.COMMANDS:
        lines += _command(name, commands[name])
    return "\n".join(lines)


def _command(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    usage = re.sub(r"\s+", " ", command.format_usage().removeprefix("usage: "))
    usage = re.sub(r" \[(-h|--json|-v \| -q)\]", "", usage)
    yield from (f"## pxe-pack {name}", "", _text(command.description or ""), "", f"    {usage}", "")
    yield from _table(command, besides=_OUTPUT)


def _table(
    command: argparse.ArgumentParser, *, only: Collection[str] = (), besides: Collection[str] = ()
) -> Iterator[str]:
    """A table of the arguments; none if there are none."""
    rows = []
    for action in parser.actions(command):
        flags = set(action.option_strings)
        if isinstance(action.choices, dict) or not flags.isdisjoint(besides) or (only and flags.isdisjoint(only)):
            continue
        names = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar or action.dest}`"
        value = f" `{action.metavar}`" if flags and action.nargs != 0 and action.metavar else ""
        few = [str(choice) for choice in action.choices or ()][:_MOST]
        choices = f" ({', '.join(few)})" if 0 < len(few) < _MOST else ""
        meaning = (action.help or "") % {**vars(action), "prog": command.prog}
        rows.append(f"| {names}{value} | {_text(meaning)}{choices} |")
    if rows:
        yield from ("| argument | meaning |", "|---|---|", *rows, "")


def _text(words: str) -> str:
    """Text in which Markdown would not find anything of its own."""
    parts = re.split(r"(`[^`]*`)", words)
    return "".join(part if part.startswith("`") else re.sub(r"([|<*_\[])", r"\\\1", part) for part in parts)
