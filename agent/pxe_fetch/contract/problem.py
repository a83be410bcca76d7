"""A user's mistake as a value: what is wrong, where, and how to fix it; and how text from outside is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import NamedTuple

from pxe_fetch.contract.record import record

LONGEST = 4096  # characters of one text from outside that are shown
# What cannot be seen, or turns the text around it (Unicode, Default_Ignorable_Code_Point; the blank of Braille)
HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BEFORE, _BEHIND = 60, 100  # characters of a long line that are shown before a problem, and from its first one on


class Position(NamedTuple):
    """A stretch of one line of a text. Lines and columns count from 1, columns and width in characters."""

    file: str
    line: int
    column: int
    width: int = 1
    text: str = ""  # the whole line, without its end


@record
class Problem:
    """One finding. `reference` is kebab-case and stable: people search for it and scripts match on it."""

    reference: str
    message: str
    hint: str = ""
    where: Position | None = None
    label: str = ""  # shown beside the carets
    severity: str = "error"  # "error", "warning" or "note"

    def __str__(self) -> str:
        """The finding in one line: `file:line:column: message [reference]`."""
        place = f"{self.where.file}:{self.where.line}:{self.where.column}: " if self.where else ""
        return f"{printable(f'{place}{self.message}')} [{self.reference}]"

    def as_document(self) -> dict[str, object]:
        """The finding as JSON data."""
        where = self.where._asdict() if self.where else None
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"where": where}


class ProblemError(Exception):
    """One or more problems that end the work; the exit code depends on the subclass."""

    def __init__(self, *problems: Problem, count: int = 0) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems
        self.count = count or len(problems)  # of all that were found; `problems` may have only the first


class RuleError(ValueError):
    """A value breaks a rule. `message` follows the value's path ("artifacts[0].sha256 is not …")."""

    def __init__(self, message: str, *, reference: str, label: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reference = reference
        self.label = label
        self.hint = hint


def show(problem: Problem) -> str:
    """`problem` as text for a terminal: headline, the source line with carets, the hint.

    The form is rustc's and butane's: severity[reference], place, source, carets with a label, and the hint after a
    blank line. No trailing newline.
    """
    lines = [f"{problem.severity}[{problem.reference}]: {printable(problem.message)}"]
    label = "\n".join(map(printable, problem.label.split("\n")))
    where = problem.where
    if where:
        lines.append(printable(f"  --> {where.file}:{where.line}:{where.column}"))
    if where and where.text:
        first = max(0, where.column - 1 - _BEFORE) if len(where.text) > _BEFORE + _BEHIND else 0
        before = printable(where.text[first : where.column - 1])  # a tab is one column, so that the carets line up
        behind = printable(where.text[where.column - 1 : where.column - 1 + _BEHIND])
        gutter = " " * len(str(where.line))
        carets = "^" * max(1, min(where.width, len(behind)))
        lines += [
            f" {gutter} |",
            f" {where.line} | {before}{behind}",
            f" {gutter} | {' ' * len(before)}{carets} {label}".rstrip(),
        ]
    elif label:
        lines.append(f"  {label}")
    if problem.hint:
        lines += ["", f"hint: {printable(problem.hint)}"]
    return "\n".join(lines)


def show_all(problems: Sequence[Problem]) -> str:
    """All of `problems`, with blank lines between them and, if there are several, a final line with their number."""
    blocks = [show(problem) for problem in problems]
    if len(problems) > 1:
        blocks.append(f"{len(problems)} problems found")
    return "\n\n".join(blocks)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean …?` with the one of the `known` words that is most like `word`; empty if none is."""
    from difflib import get_close_matches  # most input has no mistake

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""


def is_shown(text: str) -> bool:
    """Whether each character of `text` is shown, as itself and in its place."""
    return text.isprintable() and not HIDDEN.search(text)


def printable(text: str) -> str:
    """`text` as it may be shown: a blank for each character that a terminal or a reader could take for something else.

    No more than LONGEST characters: all that comes from a server, the firmware or a file passes here.
    """
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return text if is_shown(text) else "".join(c if is_shown(c) else " " for c in text)
