"""Debian's FTP and TFTP servers on loopback, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fakes import ports
from fakes.process import Process, program, running

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
    with running(Process(command=[program("vsftpd"), config], is_ready=lambda: ports.accepts(port))):
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
    # It waits for its children, which finish what they are at when asked to end: hence the kill of its group.
    with running(Process(command=[program("in.tftpd"), *words, root], is_ready=lambda: ports.is_bound(port))):
        yield Tftpd(port=port, root=root)
