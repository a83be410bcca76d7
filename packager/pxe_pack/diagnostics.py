"""Problems as a terminal shows them: with colour, and with lines that end between words.

What is piped stays plain, one problem a block, as `contract.problem.show` writes it. Colours are those of rustc. They
are left out where NO_COLOR is set (no-color.org) or TERM is "dumb".
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import TextIO

Paint = Callable[[str, str], str]  # colour and text -> the text in it

_RED, _YELLOW, _CYAN, _BLUE, _BOLD = "1;31", "1;33", "1;36", "1;34", "1"  # ECMA-48, SGR
_SEVERITIES = {"error": _RED, "warning": _YELLOW, "note": _CYAN}

_HEADLINE = re.compile(r"((error|warning|note)\[[a-z0-9-]+\]):.*")
_PLACE = re.compile(r"( +--> )(.*)")
_SOURCE = re.compile(r"( +(?:\d+ )?\|)(.*)")
_CARETS = re.compile(r"( +\|)( +)(\^+)(.*)")
_HINT = "hint:"
_COMMAND = re.compile(r"  \S")
_FIRST_COLUMN = re.compile(r"\S+ {2,}| +|✓ ")  # `image     liveos.iso`, or what marks a step's end

_NARROWEST = 20  # columns; fewer make nothing readable
_DEFAULT_WIDTH = 80  # of a terminal that does not know its own


def is_colourful(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that is to have colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def for_stream(text: str, stream: TextIO) -> str:
    """`text`, in which there may be problems, as `stream` is to show it: unchanged unless that is a terminal."""
    if not stream.isatty():
        return text
    paint = _in if is_colourful(stream) else _plain
    return "\n".join(_lines(text, width=width_of(stream), paint=paint))


def wrapped(line: str, stream: TextIO) -> str:
    """`line` as `stream` is to show it: on a terminal, in lines that end between words.

    A command that is run, which is indented by two blanks, stays one line that can be copied.
    """
    if not stream.isatty() or len(line) <= width_of(stream) or _COMMAND.match(line):
        return line
    indent = _FIRST_COLUMN.match(line)
    return "\n".join(_wrapped(line, width_of(stream), indent=len(indent[0]) if indent else 0))


def width_of(stream: TextIO) -> int:
    """The columns of a terminal: $COLUMNS, else what it says itself."""
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        width = 0
    return max(width, _NARROWEST) if width else _DEFAULT_WIDTH


def _lines(text: str, *, width: int, paint: Paint) -> Iterator[str]:
    """The lines of `text`. Headlines, labels and hints are wrapped, for they are prose; source lines are cut."""
    severity, in_source, column = "", False, 0
    lines = text.split("\n")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if found := _HEADLINE.fullmatch(line):
            severity, in_source = _SEVERITIES[found[2]], False
            first, *others = _wrapped(line, width)
            start = len(found[1])
            yield f"{paint(severity, first[:start])}{paint(_BOLD, first[start:])}"
            yield from (paint(_BOLD, other) for other in others)
        elif found := _PLACE.fullmatch(line):
            in_source = True
            yield f"{paint(_BLUE, found[1])}{found[2]}"
        elif in_source and (found := _CARETS.fullmatch(line)):
            gutter, before, carets, label = found.groups()
            space = width - len(gutter) - len(before) + column
            beside = len(carets) + len(label) <= space
            marked = (carets + label if beside else carets)[:space]
            yield f"{paint(_BLUE, gutter)}{before[column:]}{paint(severity, marked)}"
            for part in [] if beside else _wrapped(label, width - len(gutter)):
                yield f"{paint(_BLUE, gutter)}  {paint(severity, part.strip())}"
        elif in_source and (found := _SOURCE.fullmatch(line)):
            gutter, source = found.groups()
            below = _CARETS.fullmatch(following)
            column = _first_column(len(below[2]) if below else 0, size=len(source), space=width - len(gutter))
            shown = f" …{source[column + 2 :]}" if column else source
            yield f"{paint(_BLUE, gutter)}{shown[: width - len(gutter)]}"
        elif line.startswith(_HINT):
            first, *others = _wrapped(line, width)
            yield f"{paint(_CYAN, _HINT)}{first.removeprefix(_HINT)}"
            yield from others
        else:
            in_source = False
            yield line


def _first_column(place: int, *, size: int, space: int) -> int:
    """Where to begin a source line of `size` characters, of which `space` fit, so that the one at `place` is shown."""
    return max(0, min(place - space // 3, size - space))


def _wrapped(line: str, width: int, *, indent: int = 2) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _in(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if text else ""


def _plain(_: str, text: str) -> str:
    return text
