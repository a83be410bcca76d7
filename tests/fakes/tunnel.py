"""A proxy for https: it connects where CONNECT says (RFC 9110 9.3.6) and remembers that it was asked to."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from types import TracebackType
from typing import Self


class Tunnel:
    """Runs until `close`; also a context manager. With `refusal` it answers that status to everybody.

    With `wants` it answers 407 to those that don't send it, `user:password`, as Basic (RFC 7617). `status` is its
    answer once it has connected. `delay` seconds pass between its answer and the first byte it passes on. With `tls`
    it is asked by https.
    """

    def __init__(
        self,
        *,
        refusal: int | None = None,
        wants: str | None = None,
        status: str = "200 Connected",
        delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._status = status.encode()
        self._field = wants and f"\r\nProxy-Authorization: Basic {b64encode(wants.encode()).decode()}\r\n"
        self._delay = delay
        self._tls = tls
        self.asked: list[str] = []  # the header of each CONNECT
        self._refusal = refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and wait for the connections to end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._connect, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _connect(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            client = stack.enter_context(self._tls.wrap_socket(client, server_side=True) if self._tls else client)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.asked.append(head.decode())
            refusal = 407 if self._field and self._field not in self.asked[-1] else self._refusal
            if refusal:
                client.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % refusal)
                return
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as server:
                client.sendall(b"HTTP/1.1 %b\r\n\r\n" % self._status)
                time.sleep(self._delay)
                _join(client, server)


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until either side ends."""
    to = {one: other, other: one}
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            to[ready].sendall(data)
