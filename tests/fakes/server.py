"""A web server that does to each request what a script says, byte for byte, and remembers what it was asked.

    Server({"/m.bin": Script(body=…, faults=[Status(503), Status(503), Cut(at=0.5)])})

answers the first two requests for /m.bin with 503, sends half of the third's body, and serves the rest properly.
Paths without a script come from `directory`, with ranges. Raw sockets on loopback; `python -m fakes.server DIR` too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from fakes.content import Content
from fakes.exchange import Asked, Exchange, Fault, GoneError
from fakes.faults import Serve, Status
from fakes.peer import Peer

LONGEST_REQUEST = 256 * 1024  # bytes of a request's header


@dataclass(frozen=True, kw_only=True)
class Script:
    """`faults` happen to the first requests for a path, one each; `then` to all that follow (served, if None)."""

    body: bytes | Path = b""
    faults: Sequence[Fault] = ()
    then: Fault | None = None


class Server:
    """Runs from its making until `close`; also a context manager."""

    def __init__(
        self,
        scripts: Mapping[str, Script] | None = None,
        *,
        directory: Path | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        watches: bool = False,
    ) -> None:
        """`watches` its clients: `Asked.taken` says what they have read, and no more than a PIECE is ever unread."""
        self.scripts = dict(scripts or {})
        self.asked: list[Asked] = []
        self.closing, self._close = socket.socketpair()
        self._turns: dict[str, Iterator[Fault]] = {}
        self._directory = directory
        self._tls = tls
        self._watches = watches
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._numbers = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = port
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, path: str, *, user: str = "") -> str:
        """The address of `path` here."""
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{user}{'@' if user else ''}{'localhost' if self._tls else '127.0.0.1'}:{self.port}{path}"

    def asked_for(self, path: str) -> list[Asked]:
        """The requests for `path` so far, in order."""
        with self._lock:
            return [asked for asked in self.asked if asked.path == path]

    def sent(self, path: str) -> int:
        """Bytes of bodies sent for `path` so far."""
        return sum(asked.sent for asked in self.asked_for(path))

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._listener is not None

    def up(self) -> None:
        """Listen (again, on the same port)."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def down(self) -> None:
        """Refuse connections, and break those there are."""
        if self._listener:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop, and wait for every thread."""
        self._close.close()
        self.down()
        for thread in self._threads:
            thread.join(timeout=5)
        self.closing.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        number = next(self._numbers)
        with contextlib.suppress(OSError, GoneError), contextlib.ExitStack() as stack:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            peer = stack.enter_context(contextlib.closing(Peer(connection))) if self._watches else None
            with self._lock:
                self._connections[number] = connection
            pending = b""
            while True:
                asked, pending = _read_request(connection, pending, number=number)
                if not self._answer(connection, asked, peer):
                    break
        with self._lock:
            self._connections.pop(number, None)
        with contextlib.suppress(OSError):
            connection.close()

    def _answer(self, connection: socket.socket, asked: Asked, peer: Peer | None) -> bool:
        """Answer one request; whether the connection is kept."""
        path = urlsplit(asked.path).path
        with self._lock:
            self.asked.append(asked)
            script = self.scripts.get(path)
            if script:
                fault = next(self._turns.setdefault(path, iter(script.faults)), script.then or Serve())
                content = Content(script.body)
            else:
                file = _inside(self._directory, path)
                fault, content = (Serve(), Content(file)) if file else (Status(404), Content(b""))
            if asked.method == "POST" and not (script and script.faults):
                fault = Status(204)
        asked.fault = repr(fault)
        exchange = Exchange(connection, closing=self.closing, asked=asked, content=content, peer=peer)
        fault.answer(exchange)
        return exchange.keep


def _inside(directory: Path | None, path: str) -> Path | None:
    """The file that `path` means below `directory`."""
    if directory is None:
        return None
    file = (directory / unquote(path).lstrip("/")).resolve()
    return file if file.is_relative_to(directory.resolve()) and file.is_file() else None


def _read_request(connection: socket.socket, pending: bytes, *, number: int) -> tuple[Asked, bytes]:
    """The next request on `connection`, and what came after it."""
    while b"\r\n\r\n" not in pending:
        data = connection.recv(65536)
        if not data or len(pending) > LONGEST_REQUEST:
            raise GoneError
        pending += data
    head, _, rest = pending.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(fields.get("content-length", "0"))
    while len(rest) < length:
        data = connection.recv(65536)
        if not data:
            raise GoneError
        rest += data
    asked = Asked(connection=number, method=method, path=path, fields=fields, body=rest[:length])
    return asked, rest[length:]


def main() -> None:
    """Serve a folder until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with Server(directory=options.directory, port=options.port) as server:
        print(server.url("/"), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    sys.exit(0)


if __name__ == "__main__":
    main()
