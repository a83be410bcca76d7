"""What systemd is told while the service starts: sd_notify(3), without libsystemd."""

from __future__ import annotations

import os

# `socket` brings enum and selectors along, which cost more than the datagram; a run with nothing to do pays neither.
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM
from _socket import socket as Socket  # noqa: N812

READY = "READY=1"
# Bytes of one assignment. systemd ignores a datagram of more than 4096 bytes (NOTIFY_BUFFER_MAX), READY=1 and all.
LONGEST = 1000


def notify(*assignments: str) -> bool:
    """Send `NAME=value` assignments to the service manager; whether there was one that took them.

    $NOTIFY_SOCKET names a path, or an abstract socket when it begins with `@` (sd_notify(3)). What is too long is cut
    off, and stays on one line. Never raises OSError: a run does not fail because nobody listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        channel = Socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(b"\n".join(map(_short, assignments)))
        finally:
            channel.close()
    except OSError:
        return False
    return True


def _short(assignment: str) -> bytes:
    line = " ".join(assignment.splitlines()).encode(errors="replace")
    return line if len(line) <= LONGEST else line[:LONGEST].decode(errors="ignore").encode()


def is_service() -> bool:
    """Whether systemd runs this process as a unit, not a person in a shell."""
    return bool(os.environ.get("INVOCATION_ID") and os.environ.get("NOTIFY_SOCKET"))
