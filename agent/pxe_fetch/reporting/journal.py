"""What systemd and the console are told: journal entries, notifications of the service, the line of the outcome.

Entries go to journald with typed fields, or to stderr if journald or systemd-python is missing.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pxe_fetch.contract.problem import printable

try:
    from systemd import journal as journald
except ImportError:  # no systemd-python, or no libsystemd.so.0: a laptop, a container
    journald = None

# syslog(3) priorities, which sd-daemon(3) puts in angle brackets in front of a line.
ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7

Value = str | float | None  # of a field; None: the entry does not have it

IDENTIFIER = "pxe-fetch"
CONSOLE = "/dev/console"
CGROUP = "/proc/self/cgroup"
SOCKET = Path("/run/systemd/journal/socket")

READY = "READY=1"
# Bytes of one assignment. systemd drops a datagram of more than 4096 bytes (NOTIFY_BUFFER_MAX) whole, READY=1 included.
MAX_ASSIGNMENT = 1000
RECENT_LINES = 200  # that are kept for the report of a failure


class Journal:
    """Writes entries. Safe to use from several threads: each entry is one datagram or one write."""

    def __init__(self, *, debug: bool = False, stream: TextIO | None = None) -> None:
        self.debug = debug
        self.recent: deque[str] = deque(maxlen=RECENT_LINES)  # the messages sent last, each on one line
        self._stream = sys.stderr if stream is None else stream
        self._has_journald = _is_connected_to_journald(self._stream)
        # Whether a person reads the lines as they are written: on a terminal or in a file.
        self.is_plain_text = not self._has_journald and not is_service()
        # journald looks up the unit of a sender in /proc when it reads the entry, and finds nothing if the process has
        # exited by then, as happens on a busy node (systemd issue 2913). `journalctl --unit` also matches
        # OBJECT_SYSTEMD_UNIT= of senders that run as root (journalctl(1)).
        self._unit = _own_unit() if self._has_journald else None

    def send(self, message: str, *, priority: int = INFO, message_id: str = "", **fields: Value) -> None:
        """Write `message`. Each of `fields` becomes PXE_FETCH_<NAME>, unless it is None. Never raises OSError."""
        if priority == DEBUG and not self.debug:
            return
        self.recent.append(printable(message))
        if self._has_journald:
            entry = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": IDENTIFIER}
            entry |= {"MESSAGE_ID": message_id} if message_id else {}
            entry |= {"OBJECT_SYSTEMD_UNIT": self._unit} if self._unit else {}
            entry |= {f"PXE_FETCH_{name.upper()}": str(value) for name, value in fields.items() if value is not None}
            if send_to_journald(entry):
                return
        prefix = f"{IDENTIFIER}: " if self.is_plain_text else f"<{priority}>"
        # Only debug entries, which are our own tracebacks, may span lines: a server's text must not fake an entry.
        lines = message.splitlines() if priority == DEBUG else [message]
        self.write("\n".join(f"{prefix}{printable(line)}" for line in lines))

    def write(self, text: str) -> None:
        """Write `text` and a newline to the stream, for people at a terminal. Never raises OSError."""
        with suppress(OSError, ValueError):  # stderr is closed or full; the state file still has the result
            self._stream.write(f"{text}\n")
            self._stream.flush()


def send_to_journald(entry: Mapping[str, str]) -> bool:
    """Send one entry, field by field (systemd.journal-fields(7)); False if that is not possible."""
    if journald is None:
        return False
    # A file name may hold bytes that are not UTF-8 (surrogate escapes), which `send` would refuse.
    fields = {name: value.encode(errors="replace").decode() for name, value in entry.items()}
    try:
        # CODE_FUNC, or `send` walks the stack for each entry to add its caller's file and line: always this one.
        journald.send(**fields, CODE_FUNC=send_to_journald.__qualname__)
    except OSError:
        return False
    return True


def notify(*assignments: str) -> bool:
    """Send `NAME=value` assignments to the service manager, without libsystemd; True if one received them.

    $NOTIFY_SOCKET is a path, or an abstract socket if it begins with `@` (sd_notify(3)). Each assignment is reduced to
    one line of at most MAX_ASSIGNMENT bytes. Never raises OSError: a run must not fail because nobody listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        lines = (" ".join(one.splitlines()).encode(errors="replace")[:MAX_ASSIGNMENT] for one in assignments)
        channel.send("\n".join(line.decode(errors="ignore") for line in lines).encode())
        return True
    return False


def is_service() -> bool:
    """Whether systemd runs this process as a service, rather than a person in a shell."""
    return bool(os.environ.get("INVOCATION_ID") and os.environ.get("NOTIFY_SOCKET"))


def write_to_console(message: str) -> None:
    """Write one line to the machine's console if systemd runs the agent, else to stdout. Never raises OSError."""
    line = f"{printable(message)}\n"
    with suppress(OSError, ValueError):  # stdout is closed, or there is no console; the journal has the line too
        if not is_service() or os.geteuid() != 0:
            sys.stdout.write(line)
            sys.stdout.flush()
            return
        descriptor = os.open(CONSOLE, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"\n{line}".encode())  # other programs write there too: start on a new line
        finally:
            os.close(descriptor)


def _is_connected_to_journald(stream: TextIO) -> bool:
    """Whether `stream` leads to journald: $JOURNAL_STREAM is then its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" and SOCKET.exists()


def _own_unit() -> str | None:
    """The service that this process belongs to: the last part of its control group's path (cgroups(7))."""
    groups = ""
    with suppress(OSError, ValueError):
        groups = Path(CGROUP).read_text(encoding="utf-8")
    # Version 2 has one line, `0::/system.slice/NAME.service`; in version 1, systemd's own hierarchy is named so.
    found = re.search(r"^\d+:(?:name=systemd)?:.*/([^/\n]+\.service)$", groups, re.MULTILINE)
    return found[1] if found else None
