"""A server's port: one that is free, whether somebody listens there, what its clients have taken."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence

from fakes.waiting import until


def free(address: str = "127.0.0.1", *, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of `address` that nobody has."""
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def taken(port: int, *, inside: Sequence[str] = ()) -> list[int]:
    """For each connection to `port`, how many bytes its client has taken so far (tcp(7), TCP_INFO).

    `inside` are the words that run a command in another network namespace.
    """
    command = [*inside, "ss", "-Htino", "state", "established", f"sport = :{port}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [int(found) for found in re.findall(r"bytes_acked:(\d+)", shown)]


@contextlib.contextmanager
def deaf() -> Iterator[tuple[str, int]]:
    """An address whose packets are lost: a listener with more connections than it has room for."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        try:
            yield server.getsockname()
        finally:
            for filler in fillers:
                filler.close()


def is_listening(port: int, *, inside: Sequence[str] = ()) -> bool:
    """Whether somebody listens at `port`, without connecting; `inside` as in `taken`."""
    command = [*inside, "ss", "-Hltn", f"sport = :{port}"]
    return bool(subprocess.run(command, check=True, capture_output=True).stdout)


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

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return True
        assert process.poll() is None, f"{process.args!r} did not start"
        return False

    until(listens, every=0.01)
