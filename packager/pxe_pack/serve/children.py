"""The servers as child processes: started, watched, and ended with this program."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.tools import WorkError

STARTING = 20.0  # seconds for a server to be ready
ENDING = 5.0  # seconds from SIGTERM to SIGKILL
_SHOWN = 8  # last lines of a server's log
_POLL = 0.05  # seconds


class ServerEndedError(WorkError):
    """A server that was started ended by itself."""


class _Watcher:
    """Ends the process `pid` once this program has ended, even by SIGKILL.

    The kernel's signal for that is cleared in a process that becomes another user (prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(self, pid: int) -> None:
        reading, self._writing = os.pipe()  # no child inherits the end for writing: `read` ends when this program does
        try:
            self._process = tools.start(
                *("sh", "-c", 'read -r _; kill "$1"', "sh", str(pid)),
                stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, death_signal="clear",
            )  # fmt: skip
        finally:
            os.close(reading)

    def stop(self) -> None:
        """Let the process live on, or its number be another's."""
        self._process.kill()
        self._process.wait()
        os.close(self._writing)


@dataclass(kw_only=True, slots=True)
class Child:
    """A server: what is run, and how to see that it serves. Errors are at the end of `log`."""

    name: str
    program: str
    arguments: Sequence[str | Path]
    log: Path
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)  # in addition to this program's
    becomes_another_user: bool = False
    process: subprocess.Popen[bytes] | None = None
    _watcher: _Watcher | None = None

    def start(self) -> None:
        """Start it, and wait until it serves. Raises ServerEndedError if it does not, InputError if it is missing."""
        with self.log.open("ab") as log:
            self.process = tools.start(
                self.program, *self.arguments,
                stdout=log, stderr=subprocess.STDOUT, death_signal="TERM", env=self.environment,
            )  # fmt: skip
        if self.becomes_another_user:
            self._watcher = _Watcher(self.process.pid)
        until = time.monotonic() + STARTING
        while not self.is_ready():
            self.check()
            if time.monotonic() > until:
                self.stop()
                raise self._ended(f"did not start within {STARTING:.0f} s")
            time.sleep(_POLL)
        self.check()

    def check(self) -> None:
        """Raise ServerEndedError if it has ended."""
        code = self.process.poll() if self.process else None
        if code is not None:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise self._ended(f"has ended with {how}")

    def reload(self) -> None:
        """Have it read its configuration again, without an interruption."""
        if self.process:
            self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it; it has ended then."""
        if self._watcher:
            self._watcher.stop()
            self._watcher = None
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ended(self, how: str) -> ServerEndedError:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        message = f"{self.name} {how}, so all servers are stopped"
        label = "\n  ".join(lines[-_SHOWN:])
        return ServerEndedError(Problem(reference="server-ended", message=message, label=label))
