"""Messages to the service manager while the service starts: sd_notify(3), without libsystemd."""

from __future__ import annotations

import os
import socket

READY = "READY=1"
# Bytes of one assignment. systemd drops a datagram of more than 4096 bytes (NOTIFY_BUFFER_MAX) whole, READY=1 included.
MAX_ASSIGNMENT = 1000


def notify(*assignments: str) -> bool:
    """Send `NAME=value` assignments to the service manager; True if one received them.

    $NOTIFY_SOCKET is a path, or an abstract socket if it begins with `@` (sd_notify(3)). Each assignment is reduced to
    one line of at most MAX_ASSIGNMENT bytes. Never raises OSError: a run must not fail because nobody listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(b"\n".join(map(_shorten, assignments)))
    except OSError:
        return False
    return True


def is_service() -> bool:
    """Whether systemd runs this process as a service, rather than a person in a shell."""
    return bool(os.environ.get("INVOCATION_ID") and os.environ.get("NOTIFY_SOCKET"))


def _shorten(assignment: str) -> bytes:
    line = " ".join(assignment.splitlines()).encode(errors="replace")
    return line[:MAX_ASSIGNMENT].decode(errors="ignore").encode()
