"""Connections that nobody may hold: a few from each address, and each with a request soon.

uvicorn waits for a request forever, and the system gives a process no more than so many open files.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pxe_pack.collector.addresses import is_loopback

HEADER_TIMEOUT = 5.0  # seconds from a connection, or the first byte of a request, to the end of its header
MOST_OF_ADDRESS = 100  # open connections
MOST_FILES = 16384  # that the collector has open


class Connection(HttpToolsProtocol):
    """A connection. `on_…` are httptools' callbacks (its README, "Usage")."""

    _of_address: ClassVar[Counter[str]] = Counter()
    _address = ""  # counted; empty: none, as of a proxy on this machine, which has many nodes
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Count it, and wait for its first request."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not address or is_loopback(address):
            self._wait_for_header()
        elif self._of_address[address] >= MOST_OF_ADDRESS:
            transport.abort()
        else:
            self._address = address
            self._of_address[address] += 1
            self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        super().connection_lost(exc)
        self._stop_waiting()
        if self._address:
            self._of_address[self._address] -= 1
            if not self._of_address[self._address]:
                del self._of_address[self._address]
            self._address = ""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wait_for_header()

    def on_headers_complete(self) -> None:
        """Its header is here."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_header(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIMEOUT, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def raise_file_limit() -> int:
    """Let this process have as many open files as it may, up to MOST_FILES; how many that are (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft
