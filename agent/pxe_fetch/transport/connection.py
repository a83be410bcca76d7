"""Connections of urllib3 and responses of http.client; docs/decisions/0008 lists what is overridden, and why."""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import ssl
import time
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from typing import Any, cast

import urllib3.connection

from pxe_fetch.contract.url import Url
from pxe_fetch.transport.exchange import Duplicate, Exchange, proxy_authorization, refusal
from pxe_fetch.transport.sockets import ConnectTimeoutError, connect

CURRENT: ContextVar[Exchange] = ContextVar("the exchange of this thread, for which urllib3 has no parameter")

LONGEST_HEADER = 300 * 1024  # bytes of a whole header, interim ones included
_INTERIM = frozenset(range(100, 200)) - {101}  # answers that another one follows (RFC 9110, 15.2)
_NO_BODY = frozenset({101, 204, 304})
_BUFFERED = io.DEFAULT_BUFFER_SIZE  # bytes that may have been read together with the header
_RECORD = 8192  # bytes of a TLS record, 16 KiB at most (RFC 8446, 5.1), behind which others may have come
_LENGTH = re.compile(r"0*\d{1,18}", re.ASCII)  # less than 2**63
_STATUS = re.compile(r"HTTP/1\.(\d)[ \t]+([1-9]\d\d)(?=[ \t\n])", re.ASCII)
_FIELD = re.compile(  # one that is read here or in http.py, with the lines that go on with it (RFC 9112, 5.2)
    r"\n(accept-ranges|connection|content-encoding|content-length|content-range|content-type|date|etag|keep-alive"
    r"|location|proxy-authenticate|proxy-connection|retry-after|transfer-encoding|www-authenticate)"
    r"[ \t]*:(.*(?:\n[ \t].*)*)",
    re.ASCII | re.IGNORECASE,
)
_HTTP_1_1 = 11
_NONE = http.client.HTTPMessage()  # for urllib3, which needs none of the fields; an e-mail message takes its time


class Response(http.client.HTTPResponse):
    """Reads the header strictly, and gives the bytes of the body as they come."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  as http.client calls it
        super().__init__(sock, *args, **kwargs)
        self._socket = sock
        self._is_tunnel = kwargs.get("method") == "CONNECT"  # its answer has no body, whatever its fields say
        self._is_buffered = True  # bytes of the body may have come with the header

    def begin(self) -> None:
        """Read the header, past interim ones. Raises HTTPException and OSError."""
        self.headers = self.msg = _NONE
        left = LONGEST_HEADER - self._read_header(LONGEST_HEADER)
        while self.status in _INTERIM:
            left -= self._read_header(left)
        if not self._is_tunnel:
            self._find_end()

    def field(self, name: str) -> str | None:
        """The first header field of that `name`, of challenges (RFC 9110, 11.7.1) all; None where it is missing."""
        values = self._fields.get(name.lower())
        return (", ".join(values) if name.endswith("-Authenticate") else values[0]) if values else None

    def _read_header(self, limit: int) -> int:
        """Read one header, interim or final, up to the empty line: its status, and the fields that matter.

        Returns how many bytes it has, `limit` at most.
        """
        exchange, header = CURRENT.get(), bytearray()
        while (line := self.fp.readline(limit - len(header) + 1)).strip(b"\r\n"):
            exchange.is_answered = True
            header += line
            if len(header) > limit:
                raise http.client.HTTPException(f"a header of more than {LONGEST_HEADER // 1024} KiB")
        exchange.is_answered |= bool(line)
        if not line.endswith(b"\n"):
            raise http.client.RemoteDisconnected("the connection ended in the header")
        text = header.decode("latin-1").replace("\r\n", "\n").replace("\r", " ")  # RFC 9112, 2.2
        status = _STATUS.match(text)
        if "\0" in text:
            raise http.client.HTTPException("a header with a NUL byte")
        if not status:
            raise http.client.HTTPException("its first line has no status")
        self.version, self.status, self.reason = _HTTP_1_1 - (status[1] == "0"), int(status[2]), ""
        self._fields: dict[str, list[str]] = {}
        for field in _FIELD.finditer(text):
            self._fields.setdefault(field[1].lower(), []).append(field[2].replace("\n", "").strip(" \t"))
        return len(header) + len(line)

    def _listed(self, *names: str) -> list[str]:
        """What the header fields of these names list (RFC 9110, 5.6.1), in lower case; [""] if there is none."""
        values = ",".join(value for name in names for value in self._fields.get(name, ()))
        return [value.strip(" \t") for value in values.lower().split(",")]

    def take(self, view: memoryview) -> int:
        """At least one byte of the body into `view`, 0 at its end. Raises IncompleteRead if that is early, OSError.

        It never waits for more once it has something, so nothing is lost when the peer goes silent.
        """
        if self.is_finished() or not view:
            return 0
        if self.chunked:
            return _copy(self.read1(len(view)), view)
        count = self._receive(view[: self.length])
        if count and self.length:
            self.length -= count
        elif self.length:
            raise http.client.IncompleteRead(b"", self.length)
        elif not count:
            self.close()
        return count

    def is_finished(self) -> bool:
        """Whether the whole body was read, so that the connection may serve another request."""
        if self.length == 0:
            self.close()
        return self.fp is None

    def _find_end(self) -> None:
        """Where the body ends, more strictly than http.client has it (RFC 9112, 6.3). Raises HTTPException."""
        codings = [coding for coding in self._listed("transfer-encoding") if coding not in {"", "identity"}]
        lengths = self._listed("content-length")
        if codings not in ([], ["chunked"]):
            raise http.client.HTTPException("a transfer coding that was not asked for")
        self.chunked, self.chunk_left, self.length = bool(codings), None, None
        if self.status in _NO_BODY:
            self.length = 0
        elif not codings and lengths != [""]:
            if not all(map(_LENGTH.fullmatch, lengths)) or len(set(map(int, lengths))) > 1:
                raise http.client.HTTPException("an invalid or contradictory Content-Length")
            self.length = int(lengths[0])
        options = self._listed("connection", "proxy-connection")
        is_kept = "close" not in options
        if self.version < _HTTP_1_1:
            is_kept = "keep-alive" in options or self.field("Keep-Alive") is not None
        self.will_close = not is_kept or (self.length is None and not self.chunked)

    def _receive(self, view: memoryview) -> int:
        """What is there, at least a byte; 0 at the end of the connection."""
        if self._is_buffered:
            # read1 gives what the buffer holds, or else makes one read of its own and leaves the buffer empty.
            wanted = min(len(view), _BUFFERED)
            count = _copy(self.fp.read1(wanted), view)
            self._is_buffered = count == wanted < _BUFFERED
            return count
        count = int(self._socket.recv_into(view))
        if isinstance(self._socket, ssl.SSLSocket) and _RECORD <= count < len(view):
            # TLS gives a record at a time, and each way through all layers costs: take what else there is by now.
            timeout = self._socket.gettimeout()
            self._socket.settimeout(0)
            with suppress(OSError):  # SSLWantReadError; what is wrong with the connection comes again
                while count < len(view) and (more := self._socket.recv_into(view[count:])):
                    count += more
            self._socket.settimeout(timeout)
        return count


def _copy(data: bytes, view: memoryview) -> int:
    view[: len(data)] = data
    return len(data)


class _Connection(urllib3.connection.HTTPConnection):
    """Connects and asks as the exchange of this thread says."""

    response_class = Response
    _served: float | None = None  # when it served a request before this one, on time.monotonic()
    _duplicate: Duplicate | None = None  # while it has a socket

    def _new_conn(self) -> socket.socket:
        exchange = CURRENT.get()
        self._served = None
        seconds = exchange.timeouts.connect
        sock = connect(self._dns_host.strip("[]"), self.port, seconds=seconds, deadline=exchange.deadline)
        sock.settimeout(None)  # the watcher ends what takes too long: a timeout would cost a poll(2) before each call
        exchange.duplicate = self._duplicate = Duplicate(fileno=os.dup(sock.fileno()))
        exchange.wait(seconds, late=ConnectTimeoutError)  # for a proxy's answer and for TLS
        return sock

    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError:
            raise ConnectTimeoutError from None
        sock: Any = self.sock
        if type(sock) is not socket.socket:
            # Else cutting the connection would end a body that has no declared length (RFC 8446, 6.1).
            sock.suppress_ragged_eofs = False

    def close(self) -> None:
        self._duplicate = None  # the exchange keeps it until its body has come: http.client may close this before
        super().close()

    def _tunnel(self) -> None:
        """Have the proxy connect. Any 2xx says that it has (RFC 9110, 9.3.6), where http.client takes 200 alone."""
        exchange = CURRENT.get()
        url, proxy = exchange.url, cast("Url", exchange.proxy)
        place = f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"
        fields = "".join(f"{name}: {value}\r\n" for name, value in proxy_authorization(proxy).items())
        self.send(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{fields}\r\n".encode("ascii"))
        response = Response(self.sock, method="CONNECT")
        response.begin()
        response.close()
        if response.status not in range(200, 300):
            raise refusal(response.status, response.field, exchange, is_tunnel=True)

    @property
    def is_connected(self) -> bool:
        """Whether it may serve another request: it has neither ended nor said what nobody asked for."""
        if self._duplicate is None or CURRENT.get().is_fresh:
            return False
        try:
            self._duplicate.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return False

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        exchange = CURRENT.get()
        exchange.idle = None if self._served is None or self.is_closed else time.monotonic() - self._served
        if not self.is_closed:
            exchange.duplicate = self._duplicate
            exchange.wait(exchange.timeouts.connect)  # for the peer to take the request
        try:
            super().request(*args, **kwargs)
        except ssl.SSLEOFError:  # to urllib3 this means: read what the server said before it closed, be it an alert
            raise BrokenPipeError from None

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        del url  # encoded anew by requests and urllib3, while a signature may cover every character as it was
        super().putrequest(method, CURRENT.get().target, *args, **kwargs)

    def getresponse(self) -> Any:  # noqa: ANN401
        exchange = CURRENT.get()
        exchange.wait(exchange.timeouts.read)  # the whole header has to come in that time
        response = super().getresponse()
        exchange.wait(inf)
        self._served = time.monotonic()
        return response


class _SecureConnection(_Connection, urllib3.connection.HTTPSConnection):
    """With TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}
