"""A server's port: one that is free, whether somebody listens there, what its clients have taken."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time


def free(address: str = "127.0.0.1", *, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of `address` that nobody has."""
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def taken(port: int) -> list[int]:
    """For each connection to `port`, how many bytes its client has taken so far (tcp(7), TCP_INFO)."""
    command = ["ss", "-Htino", "state", "established", f"sport = :{port}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [int(found) for found in re.findall(r"bytes_acked:(\d+)", shown)]


def accepts(port: int, *, address: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def is_bound(port: int, *, address: str = "127.0.0.1") -> bool:
    """Whether somebody has the port of UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return True
    return False


def wait_for(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until `process` listens; AssertionError if it ends instead."""
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        assert process.poll() is None, f"{process.args!r} did not start"
        time.sleep(0.01)
    raise AssertionError(f"{process.args!r} does not listen")
