"""A real ProFTPD on loopback, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fakes import ports
from fakes.process import Process, accepts, running

_MODULES = ("delay", "ls", "xfer")  # files of their own on Debian 13, part of the program on Debian 12
PROGRAM = Path(sys.prefix) / "debian/usr/sbin/proftpd"  # not installed, since it conflicts with vsftpd: tests/prepare

# <Anonymous> would take root, for its chroot(2): instead, "anonymous" is a user whose password is the one that clients
# send (RFC 1635), and whose folder is served as it lies.
_CONFIG = """
{modules}
ServerType standalone
ServerName test
DefaultAddress 127.0.0.1
SocketBindTight on
Port {port}
User {user}
Group {group}
PidFile {folder}/pid
ScoreboardFile {folder}/scoreboard
DelayEngine off
UseIPv6 off
UseReverseDNS off
UseSendfile off
WtmpLog off
SystemLog {folder}/log
ExtendedLog {folder}/commands ALL asked
LogFormat asked "%r"
TransferLog none
AuthOrder mod_auth_file.c
AuthUserFile {folder}/users
RequireValidShell off
RootLogin on
AllowRetrieveRestart on
PassivePorts {first} {last}
{more}
"""
_PASSWORD = "anonymous@"  # noqa: S105  that of Python's ftplib; anybody's


@dataclass(frozen=True, kw_only=True)
class Proftpd:
    """A running one."""

    folder: Path
    port: int
    process: Process

    def url(self, path: str) -> str:
        return f"ftp://127.0.0.1:{self.port}{path}"

    def commands(self) -> list[str]:
        """What clients have said so far."""
        return (self.folder / "commands").read_text(errors="replace").splitlines()


@contextlib.contextmanager
def proftpd(folder: Path, *, root: Path, more: str = "", password: str = _PASSWORD) -> Iterator[Proftpd]:
    """Serve `root` to anonymous users; `more` are further lines of proftpd.conf; another `password` keeps them out."""
    folder.mkdir()
    folder.chmod(0o755)  # it refuses a list of users that lies where others may write
    port = ports.free()
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", password], check=True, capture_output=True, text=True
    ).stdout.strip()
    users = folder / "users"
    users.write_text(f"anonymous:{hashed}:{os.geteuid()}:{os.getegid()}::{root}:/bin/false\n")
    users.chmod(0o600)
    first = ports.free()
    config = folder / "proftpd.conf"
    config.write_text(
        _CONFIG.format(
            folder=folder,
            port=port,
            user=user,
            group=group,
            first=first,
            last=min(first + 20, 65535),
            modules=_modules(),
            more=more,
        )
    )
    config.chmod(0o644)
    process = Process(
        command=[PROGRAM, "--nodaemon", "--quiet", "--config", config],
        is_ready=accepts(port),
        output=folder / "printed",
    )
    with running(process):
        yield Proftpd(folder=folder, port=port, process=process)


def _modules() -> str:
    """The lines of proftpd.conf that load what this build keeps in files."""
    folder = PROGRAM.parents[1] / "lib/proftpd"
    files = [name for name in _MODULES if (folder / f"mod_{name}.so").exists()]
    return "\n".join([f"ModulePath {folder}", *(f"LoadModule mod_{name}.c" for name in files)] if files else [])
