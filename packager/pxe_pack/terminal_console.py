"""The console of a terminal: steps as progress bars (rich); each leaves one line when it ends."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pxe_fetch.contract.problem import printable
from pxe_fetch.contract.quantity import amount as show_amount
from pxe_pack.console import PlainConsole, Step, TimedStep
from pxe_pack.diagnostics import width_of

_WIDE = len("━━━━━━━━━━ 1023.9/1023.9 GiB 0:00:00")  # a bar, the bytes, and the time


class TerminalConsole(PlainConsole):
    """Steps as progress bars (rich); each leaves one line when it ends."""

    def interrupted(self, text: str) -> None:
        """Erase the bar and show the cursor, which rich hides (ECMA-48 EL; DECTCEM)."""
        super().interrupted(f"\r\x1b[2K\x1b[?25h{text}".rstrip())

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Show the step as a bar, or as a spinner if `total` is None."""
        width = width_of(sys.stderr)
        shown = textwrap.shorten(title, width - len("⠋ "), placeholder=" …")
        columns = _columns(total, space=width - len(f"⠋ {shown} "))
        with Progress(*columns, console=RichConsole(stderr=True, width=width), transient=True) as bar:
            step = _BarStep(title, total, bar, shown=shown)
            yield step
        self.say(f"✓ {step.ending()}")


def _columns(total: int | None, *, space: int) -> list[ProgressColumn]:
    """The columns of a step's line: what fits beside its title, for rich would cut what does not."""
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if total and space >= _WIDE:
        return [*columns, BarColumn(), DownloadColumn(binary_units=True), TimeElapsedColumn()]
    if space >= len("0:00:00"):
        columns.append(TaskProgressColumn() if total else TimeElapsedColumn())
    return columns


class _BarStep(TimedStep):
    def __init__(self, title: str, total: int | None, bar: Progress, *, shown: str) -> None:
        super().__init__(title, total)
        self._bar = bar
        self._task = bar.add_task(printable(shown), total=total)

    def advance(self, amount: int) -> None:
        super().advance(amount)
        so_far = f": {show_amount(self.done)}" if self.total is None else ""  # a bar shows it otherwise
        self._bar.update(self._task, advance=amount, description=f"{self.title}{so_far}")
