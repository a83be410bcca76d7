"""What systemd is told while the service starts: sd_notify(3), without libsystemd."""

from __future__ import annotations

import os

# `socket` brings enum and selectors along, which cost more than the datagram; a run with nothing to do pays neither.
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM
from _socket import socket as Socket  # noqa: N812

READY = "READY=1"


def notify(*assignments: str) -> bool:
    """Send `NAME=value` assignments to the service manager; whether there was one that took them.

    $NOTIFY_SOCKET names a path, or an abstract socket when it begins with `@` (sd_notify(3)). Never raises OSError:
    a run does not fail because nobody listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        channel = Socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send("\n".join(assignments).encode())
        finally:
            channel.close()
    except OSError:
        return False
    return True


def is_service() -> bool:
    """Whether systemd runs this process as a unit, not a person in a shell."""
    return bool(os.environ.get("INVOCATION_ID") and os.environ.get("NOTIFY_SOCKET"))
