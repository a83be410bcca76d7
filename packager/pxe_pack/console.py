"""What a run shows: its steps with their progress, lines, problems, the result. For a person, or as JSON lines.

Progress and findings go to stderr, results to stdout, so that stdout can be piped. Colour and moving bars only on a
terminal, and never under NO_COLOR (no-color.org).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from pxe_fetch.contract.problem import Problem, show_all

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.progress import Progress


JSON_PROGRESS = 0.5  # seconds between two events on how far a step is


class Step(Protocol):
    """A step under way."""

    def advance(self, amount: int) -> None:
        """Say that `amount` more (mostly bytes) is done."""

    def note(self, text: str) -> None:
        """Say what came of the step; stands at its end."""


class Console(Protocol):
    """Where a run is shown."""

    def step(self, title: str, *, total: int | None = None) -> AbstractContextManager[Step]:
        """A context manager around one step; `total` in the unit of `advance`, where it is known."""

    def say(self, text: str) -> None:
        """Show one line of what is going on."""

    def problems(self, problems: Sequence[Problem]) -> None:
        """Show findings."""

    def result(self, document: Mapping[str, object], text: str) -> None:
        """Give what came out: `document` to machines, `text` to a person."""

    def cut_off(self, text: str) -> None:
        """Say `text`, if any, as the last that is said: in a signal's handler, which may have interrupted a print()."""


def console(*, json_lines: bool, quiet: bool = False) -> Console:
    """The console that suits where we run: JSON lines, only problems and results, a terminal with bars, plain lines."""
    if json_lines:
        return JsonConsole(quiet=quiet)
    if quiet:
        return QuietConsole()
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return TerminalConsole()
    return PlainConsole()


def _write_out(text: str) -> None:
    """Write to stdout. Ends the program where nobody reads it any more (`pxe-pack man | head`), as SIGPIPE would."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        raise SystemExit(128 + signal.SIGPIPE) from None


def _write_at_once(descriptor: int, text: str) -> None:
    """Write past the buffers of stdout and stderr, which may be in use."""
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]


class _TimedStep:
    """A step that counts; the base of what each console shows."""

    def __init__(self, title: str, total: int | None) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self.noted = ""
        self.began = time.monotonic()

    def advance(self, amount: int) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.noted = text

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def ending(self) -> str:
        """`title: note (1.2 s)`."""
        return f"{self.title}{': ' + self.noted if self.noted else ''} ({self.seconds:.1f} s)"

    def ended(self, state: str) -> dict[str, object]:
        """The fields of the event that it ended."""
        ending = {"title": self.title, "state": state, "done": self.done, "note": self.noted}
        return {**ending, "seconds": round(self.seconds, 3)}


class PlainConsole:
    """Lines on stderr: one when a step begins, one when it ended."""

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Show the step as two lines."""
        step = _TimedStep(title, total)
        self.say(f"{title} …")
        yield step
        self.say(f"✓ {step.ending()}")

    def say(self, text: str) -> None:
        """Write `text` to stderr."""
        print(text, file=sys.stderr, flush=True)

    def problems(self, problems: Sequence[Problem]) -> None:
        """Write the findings to stderr."""
        self.say(show_all(tuple(problems)))

    def result(self, document: Mapping[str, object], text: str) -> None:  # noqa: ARG002  the person's console
        """Write `text` to stdout."""
        _write_out(text)

    def cut_off(self, text: str) -> None:
        """Write `text` to stderr."""
        if text:
            _write_at_once(sys.stderr.fileno(), f"{text}\n")


class QuietConsole(PlainConsole):
    """Problems and the result, and nothing of what went on."""

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Show nothing of the step."""
        yield _TimedStep(title, total)

    def say(self, text: str) -> None:
        """Show nothing."""

    def problems(self, problems: Sequence[Problem]) -> None:
        """Write the findings to stderr."""
        print(show_all(tuple(problems)), file=sys.stderr, flush=True)

    def cut_off(self, text: str) -> None:
        """Show nothing."""


class TerminalConsole(PlainConsole):
    """Steps as moving bars (rich), which leave one line behind."""

    def cut_off(self, text: str) -> None:
        """Take the bar away, and bring the cursor back that rich hides (ECMA-48 EL; DECTCEM)."""
        super().cut_off(f"\r\x1b[2K\x1b[?25h{text}".rstrip())

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Show the step as a bar (or a spinner, where `total` is not known)."""
        from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        columns += [BarColumn(), DownloadColumn(binary_units=True)] if total else []
        from rich.console import Console as RichConsole

        bar = Progress(*columns, TimeElapsedColumn(), console=RichConsole(stderr=True), transient=True)
        with bar:
            step = _BarStep(title, total, bar)
            yield step
        self.say(f"✓ {step.ending()}")


class _BarStep(_TimedStep):
    def __init__(self, title: str, total: int | None, bar: Progress) -> None:
        super().__init__(title, total)
        self._bar = bar
        self._task = bar.add_task(title, total=total)

    def advance(self, amount: int) -> None:
        super().advance(amount)
        self._bar.update(self._task, advance=amount)


class JsonConsole:
    """One JSON object a line on stdout, each with an "event": step, progress, say, problem, result (docs/json.md)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._under_way: list[_TimedStep] = []

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Write an event when the step begins, now and then while it goes on, and one when it ended or failed."""
        self._tell("step", {"title": title, "state": "begun", "total": total})
        step = _JsonStep(title, total, self._tell)
        self._under_way.append(step)
        state = "failed"
        try:
            yield step
            state = "ended"
        finally:
            self._under_way.remove(step)
            self._tell("step", step.ended(state))

    def say(self, text: str) -> None:
        """Write a `say` event."""
        self._tell("say", {"text": text})

    def problems(self, problems: Sequence[Problem]) -> None:
        """Write a `problem` event for each finding."""
        for problem in problems:
            self._write("problem", asdict(problem))

    def result(self, document: Mapping[str, object], text: str) -> None:  # noqa: ARG002  the machine's console
        """Write the `result` event."""
        self._write("result", document)

    def cut_off(self, text: str) -> None:
        """Write that the steps under way failed, and `text` as a `say` event."""
        events = [{"event": "step", **step.ended("failed")} for step in reversed(self._under_way)]
        events += [{"event": "say", "text": text}] if text else []
        if not self._quiet:
            _write_at_once(sys.stdout.fileno(), "".join(f"{json.dumps(event)}\n" for event in events))

    def _tell(self, event: str, fields: Mapping[str, object]) -> None:
        if not self._quiet:
            self._write(event, fields)

    def _write(self, event: str, fields: Mapping[str, object]) -> None:
        _write_out(json.dumps({"event": event, **fields}, ensure_ascii=False))


class _JsonStep(_TimedStep):
    def __init__(self, title: str, total: int | None, tell: Callable[[str, Mapping[str, object]], None]) -> None:
        super().__init__(title, total)
        self._tell = tell
        self._told = self.began

    def advance(self, amount: int) -> None:
        super().advance(amount)
        if (now := time.monotonic()) - self._told >= JSON_PROGRESS:
            self._told = now
            self._tell("progress", {"title": self.title, "done": self.done, "total": self.total})


class ConsoleHandler(logging.Handler):
    """Says on a console what is logged: which programs are run, what was decided and why."""

    def __init__(self, shown: Console) -> None:
        super().__init__()
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Say it as a line."""
        self._shown.say(f"  {self.format(record)}")
