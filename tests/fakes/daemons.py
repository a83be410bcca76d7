"""Debian's FTP and TFTP servers on loopback, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes import ports

_VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=YES
ftp_username={user}
anonymous_enable=YES
local_enable=NO
anon_root={root}
anon_world_readable_only=YES
secure_chroot_dir={folder}
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
xferlog_enable=YES
log_ftp_protocol=YES
vsftpd_log_file={folder}/log
{more}
"""


@dataclass(frozen=True, kw_only=True)
class Ftpd:
    """A running vsftpd."""

    port: int
    log: Path

    def url(self, path: str) -> str:
        return f"ftp://127.0.0.1:{self.port}{path}"

    def commands(self) -> list[str]:
        """What clients have said so far."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.rpartition('", "')[2].strip('"') for line in lines if "FTP command:" in line]

    def connections(self) -> int:
        """How many there were so far; the first is the look whether it listens."""
        return self.log.read_text(errors="replace").count("CONNECT:") - 1


@contextlib.contextmanager
def vsftpd(folder: Path, *, root: Path, more: str = "", port: int | None = None) -> Iterator[Ftpd]:
    """Serve `root` to anonymous users; `more` are further lines of vsftpd.conf(5), `port` is that of one that ended."""
    folder.mkdir(exist_ok=True)
    port = port or ports.free()
    config = folder / "vsftpd.conf"
    config.write_text(_VSFTPD.format(port=port, user=getpass.getuser(), root=root, folder=folder, more=more))
    with _running([_program("vsftpd"), str(config)], ready=lambda: _accepts(port)):
        yield Ftpd(port=port, log=folder / "log")


@dataclass(frozen=True, kw_only=True)
class Tftpd:
    """A running tftpd-hpa."""

    port: int
    root: Path

    def url(self, path: str) -> str:
        """That of a file below the root. The second slash has it asked for by its absolute path: see `tftpd`."""
        return f"tftp://127.0.0.1:{self.port}/{self.root}{path}"


@contextlib.contextmanager
def tftpd(root: Path, *options: str, port: int | None = None) -> Iterator[Tftpd]:
    """Serve what is world-readable below `root`, not as the root directory (only root may have that).

    `port` is that of one that ended.
    """
    port = port or ports.free(kind=socket.SOCK_DGRAM)
    words = ["--listen", "--foreground", "--address", f"127.0.0.1:{port}", "--user", getpass.getuser(), *options]
    with _running([_program("in.tftpd"), *words, str(root)], ready=lambda: _is_bound(port)):
        yield Tftpd(port=port, root=root)


@contextlib.contextmanager
def _running(command: Sequence[str], *, ready: Callable[[], bool]) -> Iterator[None]:
    # in.tftpd waits for its children, and passes what kills it on to none: a group of its own ends them all.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        for _ in range(500):
            if ready():
                break
            assert process.poll() is None, f"{command[0]} did not start"
            time.sleep(0.01)
        else:
            raise AssertionError(f"{command[0]} does not listen")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # in.tftpd's children finish what they are at when asked to end
        process.wait(timeout=10)


def _program(name: str) -> str:
    # Ordinary users don't have it on their path, and may run it nevertheless.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not installed"
    return found


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _is_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
