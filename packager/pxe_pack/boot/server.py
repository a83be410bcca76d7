"""The HTTP server that stands in for the layout's production hosts and receives the node's report.

It listens on a Unix socket in a private folder, not on a port: slirp's command (guestfwd.py) passes each of the node's
connections to it. Only the node can reach it, and it never fails because a port is in use.
Ranges, If-Range, HEAD, ETag and persistent connections follow RFC 9110 and 9112.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from pxe_pack.boot.events import Events, Report, Requested, Sent
from pxe_pack.boot.network import Endpoint, Network

LONGEST_REPORT = 16 << 20  # bytes
BLOCK = 1 << 20  # bytes per sendfile(2), which is also the progress step
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Server(ThreadingMixIn, UnixStreamServer):
    """Serves `files` (URL -> file) to the node of `network` and puts what happens into `events`."""

    daemon_threads = True
    block_on_close = False  # a persistent connection of the node would delay the end
    request_queue_size = 64

    def __init__(self, path: Path, *, files: Mapping[str, Path], network: Network, events: Events) -> None:
        self.files = {
            (network.endpoints[urlsplit(url).netloc], unquote(urlsplit(url).path)): (url, file)
            for url, file in files.items()
        }
        self.report = network.report
        self.events = events
        super().__init__(str(path), Handler)

    def get_request(self) -> tuple[socket.socket, str]:
        """The node's next connection, and the endpoint it connected to."""
        sender, _ = super().get_request()
        with sender:
            sender.settimeout(10)
            endpoint, descriptors, _, _ = socket.recv_fds(sender, 64, 1)
        if not descriptors:
            raise OSError("guestfwd.py connected without passing a connection")
        return socket.socket(fileno=descriptors[0]), endpoint.decode()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore it: the node may drop a connection at any time, and its report says what came of it."""


@contextmanager
def serving(path: Path, *, files: Mapping[str, Path], network: Network, events: Events) -> Iterator[None]:
    """Run the server at the Unix socket `path` for the duration of the context."""
    with Server(path, files=files, network=network, events=events) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """One connection of the node."""

    protocol_version = "HTTP/1.1"
    server_version = "pxe-pack"
    server: Server
    client_address: str  # type: ignore[assignment]  # get_request returns the endpoint instead

    def do_GET(self) -> None:
        """Send a file of the layout, or the requested range of it."""
        self._send_file()

    def do_HEAD(self) -> None:
        """Send the header of a file of the layout."""
        self._send_file()

    def do_POST(self) -> None:
        """Accept the node's report."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LONGEST_REPORT:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        if self.client_address != str(self.server.report):
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        self.server.events.put(Report(document=document))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def _send_file(self) -> None:
        address, _, port = self.client_address.partition(":")
        host = self.headers.get("Host", self.client_address)
        path = unquote(urlsplit(self.path).path)
        found = self.server.files.get((Endpoint(address=IPv4Address(address), port=int(port)), path))
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, url=f"http://{host}{self.path}")
            return
        url, file = found
        try:
            body = file.open("rb")
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, url=url)
            return
        with body:
            self._send_body(url, body)

    def _send_body(self, url: str, body: BinaryIO) -> None:
        about = os.fstat(body.fileno())
        tag = f'"{about.st_mtime_ns:x}-{about.st_size:x}"'
        modified = formatdate(about.st_mtime, usegmt=True)
        wanted = self._range(about.st_size, validators=(tag, modified))
        if wanted is not None and not wanted:
            self.server.events.put(
                Requested(method=self.command, url=url, status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            )
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{about.st_size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = wanted or range(about.st_size)
        status = HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK
        self.server.events.put(Requested(method=self.command, url=url, status=status))
        self.send_response(status)
        if wanted:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{about.st_size}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", modified)
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(part.start, part.stop, BLOCK):
            sent = self.connection.sendfile(body, offset=start, count=min(BLOCK, part.stop - start))
            self.server.events.put(Sent(url=url, amount=sent))

    def _range(self, size: int, *, validators: tuple[str, str]) -> range | None:
        """The requested bytes: None for all of them, an empty range if it is unsatisfiable (RFC 9110, 14.2)."""
        match = RANGE.fullmatch(self.headers.get("Range", "").strip())
        if match is None or self.headers.get("If-Range", validators[0]).strip() not in validators:
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        if first:
            return range(int(first), min(int(last) + 1, size) if last else size)
        return range(max(0, size - int(last)), size) if last else None

    def _refuse(self, status: HTTPStatus, *, url: str | None = None) -> None:
        if url is not None:
            self.server.events.put(Requested(method=self.command, url=url, status=status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Log nothing: the events have it."""
