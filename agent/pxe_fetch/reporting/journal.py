"""One line of the run's story: to journald with its typed fields where there is one, else to stderr."""

from __future__ import annotations

import os
import sys

from pxe_fetch.reporting.notify import is_service

TYPE_CHECKING = False  # typing and collections.abc are imports that a run with nothing to do need not pay
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

# syslog(3) priorities, as sd-daemon(3) writes them in front of a line.
ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7

IDENTIFIER = "pxe-fetch"
CONSOLE = "/dev/console"
CGROUP = "/proc/self/cgroup"
_SOCKET = "/run/systemd/journal/socket"


class Journal:
    """Where the lines go. Safe to use from several threads: each line is one datagram or one write."""

    def __init__(self, *, debug: bool = False, stream: TextIO | None = None) -> None:
        self.debug = debug
        self._stream = sys.stderr if stream is None else stream
        self._has_journal = _is_journal(self._stream)
        self._prefixed = self._has_journal or is_service()
        self.is_plain = not self._prefixed  # a terminal or a file: a person reads it as it comes
        # journald learns a sender's unit from /proc when it gets to the entry, and cannot once that process is gone, as
        # it may be on a busy node (systemd issue 2913). This field alone brings the entry to `journalctl -u`
        # (journalctl(1), --unit=: OBJECT_SYSTEMD_UNIT= of a sender that is root).
        self._unit = _own_unit() if self._has_journal else None

    def shows(self, priority: int) -> bool:
        """Whether a line of that priority is written at all."""
        return priority != DEBUG or self.debug

    def send(self, message: str, *, priority: int = INFO, message_id: str = "", **fields: str | float | None) -> None:
        """Write `message`; `fields` become PXE_FETCH_<NAME>, those that are None are left out. Never raises OSError."""
        if not self.shows(priority):
            return
        if self._has_journal:
            lines = entry(message, priority=priority, message_id=message_id, fields=fields)
            if self._unit:
                lines.append(f"OBJECT_SYSTEMD_UNIT={self._unit}")
            if send_fields(lines):
                return
        prefix = f"<{priority}>" if self._prefixed else f"{IDENTIFIER}: "
        # What others said stays on one line; a traceback, which only debug shows, is the agent's own.
        shown = message.splitlines() if priority == DEBUG else [message]
        try:
            self._stream.write("".join(f"{prefix}{one_line(line)}\n" for line in shown))
            self._stream.flush()
        except (OSError, ValueError):  # stderr is closed or full: the state file still says what happened
            return

    def show(self, text: str) -> None:
        """Write `text` as it is, for a person at a terminal. Never raises OSError."""
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return


def entry(message: str, *, priority: int, message_id: str, fields: Mapping[str, str | float | None]) -> list[str]:
    """The journal fields of one entry, `NAME=value` each (systemd.journal-fields(7))."""
    lines = [f"MESSAGE={message}", f"PRIORITY={priority}", f"SYSLOG_IDENTIFIER={IDENTIFIER}"]
    if message_id:
        lines.append(f"MESSAGE_ID={message_id}")
    lines += [f"PXE_FETCH_{name.upper()}={value}" for name, value in fields.items() if value is not None]
    return lines


def send_fields(lines: list[str]) -> bool:
    """Hand one entry to journald through systemd-python; False where the module or journald is missing."""
    try:
        # What systemd.journal.send ends in. The module around it imports logging, uuid and traceback (20 ms at each
        # boot) and adds CODE_ARGS; the fields here are complete as they are.
        from systemd._journal import sendv

        # Text that is no Unicode, as a file's name may be, must not cost the run.
        sendv(*(line if line.isascii() else line.encode(errors="replace").decode() for line in lines))
    except (ImportError, OSError):
        return False
    return True


def one_line(message: str) -> str:
    """`message` without what a terminal or a line-based reader would take for something else."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else " " for c in message)


def _is_journal(stream: TextIO) -> bool:
    """Whether `stream` is connected to journald: $JOURNAL_STREAM is its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" and os.path.exists(_SOCKET)  # noqa: PTH110  pathlib is an import


def _own_unit() -> str | None:
    """The service that systemd runs this process as: the last part of its control group's path (cgroups(7))."""
    try:
        with open(CGROUP, encoding="utf-8") as groups:  # noqa: PTH123  pathlib is an import
            # Version 2 has one line, `0::/system.slice/NAME.service`; version 1 has systemd's own among others.
            owned = [line.rstrip().split(":", 2) for line in groups]
    except (OSError, ValueError):
        return None
    names = [path.rpartition("/")[2] for _, controllers, path in owned if controllers in ("", "name=systemd")]
    return next((name for name in names if name.endswith(".service")), None)


def console(message: str) -> None:
    """The one line of the result: on the machine's console when systemd runs the agent, else on stdout."""
    line = one_line(message) + "\n"
    if is_service() and os.geteuid() == 0:
        try:
            descriptor = os.open(CONSOLE, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a container or a sandbox without a console; the journal has the line too
            return
        try:
            os.write(descriptor, f"\n{line}".encode())  # others write there too: begin on a line of our own
        except OSError:
            return
        finally:
            os.close(descriptor)
        return
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        return
