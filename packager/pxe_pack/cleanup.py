"""Temporary folders and child processes: none outlives us, also when a signal ends us.

No exception stands for a signal: one may come between the making of a folder and the line that remembers it, or inside
the `finally` that removes it, and what it interrupts there is left behind. SIGINT, SIGTERM and SIGHUP are acted upon
inside their handler, which Python runs in the main thread between two bytecodes: it kills the children, removes the
temporary folders, and exits. Nothing of the program runs after that.

    handled()             from here on signals end the program that way
    held()                they wait until the block ends: around what must not be done by half
    committing()          held(), and once the block ended well they are too late: the output is in place
    raised()              SIGINT raises KeyboardInterrupt, for who has more to say (`pxe-pack boot --keep`)
    temporary_folder()    the one way to a temporary folder
    start_child()         the one way to a child process

Where `handled()` is not in force (tests call `cli.main`) all of this holds folders and children, and ends nobody.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_GROUP_ENDS = 2.0  # seconds that a killed child's own children get to be gone

Farewell = Callable[[signal.Signals], None]
"""Says that the program ends by a signal. Called in the handler: it may not print() or take a lock."""


def _silent(_: signal.Signals) -> None:
    """Say nothing."""


@dataclass(kw_only=True)
class _State:
    """What there is to clean up, and what a signal does now. Written to by the main thread alone."""

    folders: list[Path] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    farewell: Farewell = _silent
    holds: int = 0
    waiting: signal.Signals | None = None  # came while it was held
    too_late: bool = False
    raises: bool = False


_state = _State()


@contextmanager
def handled() -> Iterator[None]:
    """Have signals end the program, with nothing left behind and exit code 128 + the signal's number.

    A signal that is ignored stays ignored (nohup(1); background jobs of a shell). After the block signals do nothing
    any more: the exit code is decided.
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


def say_farewell(farewell: Farewell) -> None:
    """Have `farewell` called before a signal ends the program."""
    _state.farewell = farewell


@contextmanager
def held() -> Iterator[None]:
    """Act upon signals when the block ends. For what takes no time, or ends by itself in a moment."""
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
    """Put the output into place in this block; a signal that comes later does nothing, and the exit code is 0."""
    with held():
        yield
        _state.too_late = True


@contextmanager
def raised() -> Iterator[None]:
    """Have the next SIGINT raise KeyboardInterrupt inside the block; the one after it ends the program."""
    _state.raises = True
    try:
        yield
    finally:
        _state.raises = False


@contextmanager
def temporary_folder(*, prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent` ($TMPDIR if None), gone when the block ends. Raises OSError."""
    with held():
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
        _state.folders.append(folder)
    with removed(folder):
        yield folder


@contextmanager
def removed(folder: Path) -> Iterator[None]:
    """Remove `folder` with all that is in it when the block ends, or a signal ends us."""
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
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, so that its own children are killed with it.

    Its TMPDIR is the temporary folder that we work in, if any: what it leaves there when it is killed goes with that.
    """
    if _state.folders:
        env = {**env, "TMPDIR": str(_state.folders[-1])}
    with held():
        child = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, process_group=0)
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
    if _state.raises and came == signal.SIGINT:
        _state.raises = False
        raise KeyboardInterrupt
    _state.too_late = True  # further signals do not disturb this
    _kill(_state.children)
    for folder in reversed(_state.folders):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(Exception):  # stderr may be closed, a terminal gone
        _state.farewell(came)
    os._exit(128 + came)


def _kill(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill the children and their own, and wait until they are gone: what they write to is removed next."""
    groups = [child.pid for child in children if child.returncode is None]
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # gone, or become another user
            os.killpg(group, signal.SIGKILL)
    for group in groups:
        # not Popen.wait: we may have interrupted it while it holds its lock
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
