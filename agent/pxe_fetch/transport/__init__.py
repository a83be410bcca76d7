"""How bytes are brought: one small Protocol, and the table of the schemes that implement it, a file each.

A new scheme is one new file here, a case in `Transports`, and its name in contract.validators.SCHEMES. URLs are shown
through pxe_fetch.redact.redact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol
from urllib.parse import urlsplit

from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.contract.validators import SCHEMES
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import PolicyError

_WEB = ("http://", "https://")  # URLs of one transport


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The bytes of `url` from `offset` on; where `validator` is given only if it still names them (If-Range).

    `end` bounds what is asked for. A transport that cannot bound it answers to the end of the file, and the caller
    stops reading.
    """

    url: str
    offset: int = 0
    end: int | None = None  # offset behind the last byte that is wanted; more than `offset`, at most the file's size
    validator: str | None = None  # a strong one that an earlier Body of the same url gave
    headers: Mapping[str, str] = field(default_factory=dict)  # for the url's own origin alone
    timeouts: Timeouts
    deadline: Deadline


class Body(Protocol):
    """Bytes that arrive. `start` says where they really begin: at the request's offset, or at 0."""

    ranged: bool  # False: the answer shows that this peer begins every file at 0

    @property
    def start(self) -> int:
        """Offset of the first byte."""

    @property
    def total(self) -> int | None:
        """Size of the whole in bytes, as the server says."""

    @property
    def validator(self) -> str | None:
        """What names exactly these bytes on this server (a strong ETag), for the next Request."""

    @property
    def remark(self) -> str:
        """Anything odd about the answer that explains wrong bytes; mostly empty."""

    def readinto(self, view: memoryview) -> int:
        """Put what is there into `view`; the number of bytes, 0 at the end. Waits for at least one byte.

        Raises only FetchError: NetworkError when the peer is silent for `timeouts.read`, goes away or ends early;
        DeadlineError and StoppedError of the request's deadline, which is looked at several times a second.
        """

    def close(self) -> None:
        """Let go of the connection: for the next request where the body was read to its end, else for good."""


class Transport(Protocol):
    """One or more schemes."""

    def open(self, request: Request) -> Body:
        """The bytes of `request`. A server without ranges answers from 0, which is no error.

        Raises only FetchError: NetworkError (RangeError where it is the range that went wrong), NotFoundError,
        RefusedError, PolicyError, TrustError, DeadlineError, StoppedError; never DiskError, which is about our side.
        """

    def close(self) -> None:
        """Close every connection that is kept for later."""


def has_ranges(url: str) -> bool:
    """Whether a part of a file can be asked for by the scheme of `url`; by tftp it cannot (RFC 1350)."""
    return url.partition(":")[0].lower() != "tftp"


class Transports:
    """All schemes, ready to be used from several threads; connections are kept alive for the whole run.

    Nothing is imported before a scheme is first used.
    """

    def __init__(self, *, tls: Tls | None = None, proxy: Proxy | None = None) -> None:
        self._tls = tls or Tls()
        self._proxy = proxy or Proxy()
        self._made: dict[str, Transport] = {}
        self._http: Transport | None = None
        self._lock = Lock()

    def of(self, url: str) -> Transport:
        """The transport for `url`. Raises PolicyError for what is not a URL or has a scheme not in the table."""
        if self._http and url.startswith(_WEB):
            return self._http  # which looks at the rest of it
        try:
            parts = urlsplit(url)
            scheme, _ = parts.scheme.lower(), parts.port  # looking at a port that is none raises
        except ValueError as error:
            raise PolicyError("not a URL: its host or port cannot be read") from error
        kind = "http" if scheme == "https" else scheme
        with self._lock:
            if kind not in self._made:
                self._made[kind] = self._make(kind)
            return self._made[kind]

    def _make(self, kind: str) -> Transport:
        match kind:
            case "http":
                from pxe_fetch.transport.http import HttpTransport

                self._http = HttpTransport(tls=self._tls, proxy=self._proxy)
                return self._http
            case "file":
                from pxe_fetch.transport.file import FileTransport

                return FileTransport()
            case "ftp":
                from pxe_fetch.transport.ftp import FtpTransport

                return FtpTransport()
            case "tftp":
                from pxe_fetch.transport.tftp import TftpTransport

                return TftpTransport()
        raise PolicyError(f"there is no way to fetch {kind or 'scheme-less'} URLs; known are {', '.join(SCHEMES)}")

    def close(self) -> None:
        """Close every connection that is kept for later."""
        with self._lock:
            for transport in self._made.values():
                transport.close()
            self._made.clear()
            self._http = None
