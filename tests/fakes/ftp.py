"""An FTP server that breaks its promises; RFC 959, RFC 3659."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Breach:
    """What goes wrong. Nothing, where nothing is said."""

    welcome: bytes = b"220 ready\r\n"
    login: str = "230 welcome"
    delay: float = 0.0  # seconds before each reply
    is_ready: bool = True  # False: all that comes is the welcome, again and again
    pasv_host: str = "127,0,0,1"
    size: str | None = None  # the answer to SIZE
    rest: str = "350 go on"
    retr: str = "150 here it comes"
    cut_at: int | None = None  # byte at which the data connection ends
    reset: bool = False  # it ends by a reset
    stall: bool = False  # it doesn't end, but nothing more comes
    lingers: bool = False  # it says that all was sent only when the client has closed its end, as ProFTPD does
    final: str | None = "226 done"  # None: nothing is said
    goodbye_after: int | None = None  # files after which a connection ends
    mute_after: int | None = None  # files after which a connection stays, and nothing more is said
    times: int = 1_000_000  # files that are cut


class BreakingFtp(socketserver.ThreadingTCPServer):
    """Serves `body` under any name."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, body: bytes, breach: Breach) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.body = body
        self.breach = breach
        self.commands: list[str] = []
        self.connections = 0
        self.files = 0
        self.over = Event()
        self.on_stall: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"ftp://127.0.0.1:{self.server_address[1]}/m"

    def __enter__(self) -> Self:
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join(timeout=10)
        self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: BreakingFtp

    def handle(self) -> None:
        self.server.connections += 1
        self._offset = 0
        self._served = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        with contextlib.suppress(OSError), self._listener:
            self.wfile.write(self.server.breach.welcome)
            while not self.server.breach.is_ready and not self.server.over.wait(0.05):
                self.wfile.write(self.server.breach.welcome)
            while line := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
                self.server.commands.append(line)
                if self._served == self.server.breach.mute_after:
                    continue
                if not self._obey(*line.partition(" ")[::2]):
                    return

    def _say(self, text: str) -> None:
        self.server.over.wait(self.server.breach.delay)
        self.wfile.write(text.encode("latin-1") + b"\r\n")

    def _obey(self, command: str, argument: str) -> bool:
        breach = self.server.breach
        match command:
            case "USER":
                self._say(breach.login)
            case "TYPE":
                self._say("200 binary")
            case "SIZE":
                self._say(breach.size or f"213 {len(self.server.body)}")
            case "PASV":
                port = self._listener.getsockname()[1]
                self._say(f"227 here ({breach.pasv_host},{port >> 8},{port & 255})")
            case "REST":
                self._offset = int(argument) if breach.rest.startswith("350") else 0
                self._say(breach.rest)
            case "RETR":
                self._say(breach.retr)
                if breach.retr.startswith("1"):
                    self._send()
        return not (command == "RETR" and self._served == breach.goodbye_after)

    def _send(self) -> None:
        breach = self.server.breach
        data, _ = self._listener.accept()
        self._served += 1
        self.server.files += 1
        cut = breach.cut_at if self.server.files <= breach.times else None
        with data:
            data.sendall(self.server.body[self._offset : cut])
            if cut is not None and breach.stall:
                self.server.on_stall()
                self.server.over.wait(20)
            if breach.lingers:
                data.shutdown(socket.SHUT_WR)
                data.settimeout(10)
                data.recv(1)
            if cut is not None and breach.reset:
                data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        final = breach.final if cut is not None or breach.cut_at is None else "226 done"
        self._offset = 0
        if final:
            self._say(final)
