"""A user's mistake as a value: what is wrong, where, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Position(NamedTuple):
    """A stretch of one line of a text. Lines and columns count from 1, columns and width in characters."""

    file: str
    line: int
    column: int
    width: int = 1
    text: str = ""  # the whole line, without its end


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One finding. `reference` is kebab-case and stable: people search for it and scripts match on it."""

    reference: str
    message: str
    hint: str = ""
    where: Position | None = None
    label: str = ""  # shown beside the carets
    severity: str = "error"  # "error", "warning" or "note"

    def document(self) -> dict[str, str | int | None]:
        """The finding as JSON values, for `pxe-fetch check --json`."""
        about = {key: getattr(self, key) for key in ("reference", "severity", "message", "label", "hint")}
        return about | {key: getattr(self.where, key, None) for key in ("file", "line", "column")}

    def __str__(self) -> str:
        """The finding in one line: `file:line:column: message [reference]`."""
        place = f"{self.where.file}:{self.where.line}:{self.where.column}: " if self.where else ""
        return f"{place}{self.message} [{self.reference}]"


class ProblemError(Exception):
    """One or more problems that end the work; the exit code depends on the subclass."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def show(problem: Problem) -> str:
    """`problem` as text for a terminal: headline, the source line with carets, the hint.

    The form is rustc's and butane's: severity[reference], place, source, carets with a label, and the hint after a
    blank line. No trailing newline.
    """
    lines = [f"{problem.severity}[{problem.reference}]: {problem.message}"]
    if where := problem.where:
        lines.append(f"  --> {where.file}:{where.line}:{where.column}")
        if where.text:
            gutter = " " * len(str(where.line))
            # A tab counts as one column and is shown as one, so that the carets line up.
            text = where.text.replace("\t", " ")
            carets = "^" * max(1, min(where.width, len(text) - where.column + 1))
            label = f" {problem.label}" if problem.label else ""
            lines += [
                f" {gutter} |",
                f" {where.line} | {text}",
                f" {gutter} | {' ' * (where.column - 1)}{carets}{label}",
            ]
    if problem.label and not (problem.where and problem.where.text):
        lines.append(f"  {problem.label}")
    if problem.hint:
        lines += ["", f"hint: {problem.hint}"]
    return "\n".join(lines)


def show_all(problems: tuple[Problem, ...] | list[Problem]) -> str:
    """All of `problems`, with blank lines between them and, if there are several, a final line with their number."""
    blocks = [show(problem) for problem in problems]
    if len(problems) > 1:
        blocks.append(f"{len(problems)} problems found")
    return "\n\n".join(blocks)


def printable(text: str) -> str:
    """`text` with a blank for each character that a terminal or a line-based reader could interpret."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
