"""A server of Debian's as a process of the test: found, started, killed, started again, and gone in the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fakes import ports
from fakes.waiting import PATIENCE

# Some servers refuse to serve as root, or then give up root for a user who may not read the test's folder (mode 0700).
_NOBODY = (
    "setpriv",
    *("--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override"),
)


def program(name: str) -> str:
    """Where the program is. Ordinary users don't have servers on their path, and may run them nevertheless."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not installed"
    return found


def as_ordinary_user(*command: str | Path) -> Sequence[str | Path]:
    """`command`, and if the tests run as root then as nobody, who may read and write every file all the same."""
    return [*_NOBODY, *command] if os.geteuid() == 0 else command


@dataclass(kw_only=True)
class Process:
    """`command` in a process group of its own; `is_ready` is true once it serves."""

    command: Sequence[str | Path]
    is_ready: Callable[[], bool]
    output: Path | None = None  # what it prints is appended to this file
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = PATIENCE  # seconds until it serves
    _child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child, "it does not run"
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it (again), and wait until it serves; AssertionError, with what it printed, if it ends instead."""
        self.kill()
        with self.output.open("ab") if self.output else contextlib.nullcontext() as output:
            self._child = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for _ in range(round(self.patience * 100)):
            if self.is_ready():
                return
            assert self._child.poll() is None, f"{self.command[0]} did not start: {self.printed()}"
            time.sleep(0.01)
        raise AssertionError(f"{self.command[0]} does not serve: {self.printed()}")

    def kill(self) -> None:
        """SIGKILL for it and its children: nothing is said to clients."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(timeout=PATIENCE)
            self._child = None

    def printed(self) -> str:
        return self.output.read_text(errors="replace") if self.output and self.output.exists() else ""


@contextlib.contextmanager
def running(process: Process) -> Iterator[None]:
    """Start `process`; it is killed with its children in the end, whatever state it is in."""
    try:
        process.start()
        yield
    finally:
        process.kill()


@dataclass(kw_only=True)
class WebServer:
    """A running server of files by http, and perhaps by https."""

    folder: Path
    port: int
    process: Process
    secure_port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def secure_url(self, path: str) -> str:
        return f"https://localhost:{self.secure_port}{path}"

    def kill(self) -> None:
        self.process.kill()

    def start(self) -> None:
        self.process.start()

    def requests(self) -> list[str]:
        """A line for each request so far, as the server's own log has it: at least method, path and status."""
        time.sleep(0.05)  # a request is logged just after its last byte
        log = self.folder / "access.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []


@contextlib.contextmanager
def serving(server: WebServer) -> Iterator[WebServer]:
    """Run it for as long as the context lasts."""
    with running(server.process):
        yield server


def accepts(port: int) -> Callable[[], bool]:
    """Whether somebody accepts connections at `port`."""
    return lambda: ports.accepts(port)
