"""Temporary folders and child processes: none outlives the program, even if a signal ends it.

Signals do not become exceptions: one could arrive between creating a folder and registering it, or inside the `finally`
that removes it, and leave the folder behind. Instead the handlers of SIGINT, SIGTERM and SIGHUP, which Python runs in
the main thread between two bytecodes, kill the children, remove the temporary folders and exit. No other code of the
program runs after that.

    handle_signals()      installs those handlers
    held()                delays signals until the block ends, so that it is not left half done
    committing()          held(); after the block signals are ignored, because the output is in place
    signals_raise()       a signal raises KeyboardInterrupt, so that the caller can go on (`boot --keep`, `serve`)
    temporary_folder()    the only way to create a temporary folder
    start_child()         the only way to start a child process

Without `handle_signals()` (tests call `cli.main`) signals keep their usual effect.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_GROUP_ENDS = 2.0  # seconds to wait for the children of a killed child

ExitMessage = Callable[[signal.Signals], None]
"""Reports that a signal ends the program. It runs in the handler, so it must not print() or take a lock."""


def _silent(_: signal.Signals) -> None:
    """Say nothing."""


@dataclass(kw_only=True)
class _State:
    """What to clean up, and what a signal does now. Only the main thread writes to it."""

    folders: list[Path] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    exit_message: ExitMessage = _silent
    holds: int = 0
    waiting: signal.Signals | None = None  # arrived while signals were held
    too_late: bool = False
    raises: frozenset[signal.Signals] = frozenset()


_state = _State()


@contextmanager
def handle_signals() -> Iterator[None]:
    """Clean up and exit with 128 + the signal's number on SIGINT, SIGTERM and SIGHUP.

    A signal that is already ignored stays ignored (nohup(1); background jobs of a shell). After the block signals have
    no effect, because the exit code is decided.
    """
    for one in SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, _on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        _state.too_late = True
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def before_exit_by_signal(exit_message: ExitMessage) -> None:
    """Call `exit_message` before a signal ends the program."""
    _state.exit_message = exit_message


@contextmanager
def held() -> Iterator[None]:
    """Delay signals until the block ends. Only for blocks that take a moment."""
    _state.holds += 1
    try:
        yield
    finally:
        _state.holds -= 1
        if _state.waiting and not _state.holds:
            came, _state.waiting = _state.waiting, None
            _on_signal(came, None)


@contextmanager
def committing() -> Iterator[None]:
    """Put the output in place in this block. Later signals are ignored, and the exit code is 0."""
    with held():
        yield
        _state.too_late = True


@contextmanager
def signals_raise(*numbers: signal.Signals) -> Iterator[None]:
    """Make the next of these signals raise KeyboardInterrupt inside the block; a second one ends the program."""
    _state.raises = frozenset(numbers)
    try:
        yield
    finally:
        _state.raises = frozenset()


@contextmanager
def temporary_folder(*, prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent` ($TMPDIR if None), removed when the block ends. Raises OSError."""
    import tempfile  # with `random` and more, which --help does without

    with held():
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
        _state.folders.append(folder)
    with removed(folder):
        yield folder


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """Remove `folder` and its contents when the block ends or a signal ends the program."""
    if folder not in _state.folders:
        _state.folders.append(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _state.folders.remove(folder)


def start_child(
    command: Sequence[str | Path],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    env: Mapping[str, str],
    cwd: Path | None,
    group: int | None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own (0), so that its children are killed with it, or in ours (None).

    TMPDIR is set to the current temporary folder, if any, so that files a killed program leaves there are removed too.
    """
    if _state.folders:
        env = {**env, "TMPDIR": str(_state.folders[-1])}
    with held():
        child = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, process_group=group
        )
        _state.children = [one for one in _state.children if one.returncode is None]
        _state.children.append(child)
    return child


def _on_signal(number: int, _: FrameType | None) -> None:
    came = signal.Signals(number)
    if _state.too_late:
        return
    if _state.holds:
        _state.waiting = _state.waiting or came
        return
    if came in _state.raises:
        _state.raises = frozenset()
        raise KeyboardInterrupt
    _state.too_late = True  # further signals do not disturb this
    _kill(_state.children)
    for folder in reversed(_state.folders):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(Exception):  # stderr may be closed, or the terminal gone
        _state.exit_message(came)
    os._exit(128 + came)


def _kill(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill the children and their children, and wait for them to end: the files they write to are removed next."""
    groups = [child.pid for child in children if child.returncode is None]
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user
            os.kill(group, signal.SIGKILL)  # it may be in our group
            os.killpg(group, signal.SIGKILL)
    for group in groups:
        # not Popen.wait: the signal may have interrupted it while it held its lock
        with suppress(ChildProcessError):
            os.waitpid(group, 0)
    until = time.monotonic() + _GROUP_ENDS
    while groups and time.monotonic() < until:
        groups = [group for group in groups if _exists(group)]
        time.sleep(0.01 if groups else 0)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
