"""A run's output: steps with progress, messages, problems and the result, as text or as JSON lines.

Progress and problems go to stderr and results to stdout, so that stdout can be piped. Colour and progress bars appear
only on a terminal, and never when NO_COLOR is set (no-color.org).

All output passes here, and here text from images (names, titles, volume ids) is cleaned: a terminal must not interpret
it, and a line break in it must not look like a line of ours.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from pxe_fetch.contract.problem import Problem, is_shown, printable, show_all
from pxe_pack.diagnostics import for_stream, is_colourful, wrapped

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


JSON_PROGRESS = 0.5  # seconds between two progress events of a step


class Step(Protocol):
    """A step in progress."""

    def advance(self, amount: int) -> None:
        """Add `amount` (usually bytes) to the progress."""

    def note(self, text: str) -> None:
        """Set the text shown when the step ends."""


class Console(Protocol):
    """The output of a run."""

    def step(self, title: str, *, total: int | None = None) -> AbstractContextManager[Step]:
        """A context manager for one step. `total` is in the unit of `advance`; None if unknown."""

    def say(self, text: str) -> None:
        """Print one line."""

    def problems(self, problems: Sequence[Problem]) -> None:
        """Print problems."""

    def result(self, document: Mapping[str, object], text: str) -> None:
        """Print the result: `document` as JSON or `text`, depending on the console."""

    def interrupted(self, text: str) -> None:
        """Print `text`, if any, as the last line. Safe in a signal handler, which may have interrupted a print()."""


def console(*, json_lines: bool, quiet: bool = False) -> Console:
    """The console for these flags: JSON lines, quiet, progress bars on a terminal, or plain lines."""
    if json_lines:
        return JsonConsole(quiet=quiet)
    if quiet:
        return QuietConsole()
    if is_colourful(sys.stderr):
        from pxe_pack.terminal_console import TerminalConsole  # imports rich only where it is used

        return TerminalConsole()
    return PlainConsole()


def joined(lines: Iterable[str]) -> str:
    """The `lines` of a result as one text; a line break within one of them becomes a blank."""
    return "\n".join(map(printable, lines))


def _cleaned(text: str) -> str:
    """`text` of several lines, with a blank for each character that a terminal could interpret."""
    return "".join(c if is_shown(c) or c in "\n\t" else " " for c in text)


def _json(document: Mapping[str, object]) -> str:
    """`document` as one line of JSON, in which characters that a terminal could interpret are escaped."""
    text = json.dumps(document, ensure_ascii=False)
    return text if is_shown(text) else json.dumps(document)


def _write_out(text: str) -> None:
    """Write to stdout. If the reader has gone (`pxe-pack man | head`), exit as SIGPIPE would."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
        raise SystemExit(128 + signal.SIGPIPE) from None


def _write_at_once(descriptor: int, text: str) -> None:
    """Write without the buffers of stdout and stderr, which may be in use."""
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]


class TimedStep:
    """A step that counts its progress and time; the base class of each console's step."""

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
        """The fields of the event for its end."""
        ending = {"title": self.title, "state": state, "done": self.done, "note": self.noted}
        return {**ending, "seconds": round(self.seconds, 3)}


class PlainConsole:
    """Lines on stderr: one when a step begins, one when it ends."""

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Print a line at the beginning and one at the end."""
        step = TimedStep(title, total)
        self.say(f"{title} …")
        yield step
        self.say(f"✓ {step.ending()}")

    def say(self, text: str) -> None:
        """Write `text` to stderr."""
        print(wrapped(printable(text), sys.stderr), file=sys.stderr, flush=True)

    def problems(self, problems: Sequence[Problem]) -> None:
        """Write the problems to stderr."""
        print(for_stream(show_all(tuple(problems)), sys.stderr), file=sys.stderr, flush=True)

    def result(self, document: Mapping[str, object], text: str) -> None:  # noqa: ARG002  this console prints text
        """Write `text` to stdout."""
        _write_out(for_stream(_cleaned(text), sys.stdout))

    def interrupted(self, text: str) -> None:
        """Write `text` to stderr."""
        if text:
            _write_at_once(sys.stderr.fileno(), f"{text}\n")


class QuietConsole(PlainConsole):
    """Only problems and the result."""

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Print nothing."""
        yield TimedStep(title, total)

    def say(self, text: str) -> None:
        """Print nothing."""

    def interrupted(self, text: str) -> None:
        """Print nothing."""


class JsonConsole:
    """One JSON object per line on stdout; its "event" is step, progress, say, problem or result (docs/json.md)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._in_progress: list[TimedStep] = []

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Write an event when the step begins, progress events, and an event when it ends or fails."""
        step = _JsonStep(title, total, self._emit)
        self._in_progress.append(step)  # before it is announced: a signal may come right after
        self._emit("step", {"title": title, "state": "begun", "total": total})
        state = "failed"
        try:
            yield step
            state = "ended"
        finally:
            self._in_progress.remove(step)
            self._emit("step", step.ended(state))

    def say(self, text: str) -> None:
        """Write a `say` event."""
        self._emit("say", {"text": text})

    def problems(self, problems: Sequence[Problem]) -> None:
        """Write a `problem` event for each problem."""
        for problem in problems:
            self._write("problem", problem.as_document())

    def result(self, document: Mapping[str, object], text: str) -> None:  # noqa: ARG002  this console prints JSON
        """Write the `result` event."""
        self._write("result", document)

    def interrupted(self, text: str) -> None:
        """Write a failed event for each step in progress, and `text` as a `say` event."""
        events = [{"event": "step", **step.ended("failed")} for step in reversed(self._in_progress)]
        events += [{"event": "say", "text": text}] if text else []
        if not self._quiet:
            _write_at_once(sys.stdout.fileno(), "".join(f"{json.dumps(event)}\n" for event in events))

    def _emit(self, event: str, fields: Mapping[str, object]) -> None:
        if not self._quiet:
            self._write(event, fields)

    def _write(self, event: str, fields: Mapping[str, object]) -> None:
        _write_out(_json({"event": event, **fields}))


class _JsonStep(TimedStep):
    def __init__(self, title: str, total: int | None, emit: Callable[[str, Mapping[str, object]], None]) -> None:
        super().__init__(title, total)
        self._emit = emit
        self._last_event = self.began

    def advance(self, amount: int) -> None:
        super().advance(amount)
        if (now := time.monotonic()) - self._last_event >= JSON_PROGRESS:
            self._last_event = now
            self._emit("progress", {"title": self.title, "done": self.done, "total": self.total})


class ConsoleHandler(logging.Handler):
    """Prints log records on a console: the programs that are run, decisions and their reasons."""

    def __init__(self, shown: Console) -> None:
        super().__init__()
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record as one line."""
        self._shown.say(f"  {self.format(record)}")
