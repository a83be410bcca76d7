"""The Protocol by which bytes are fetched, and the table of the schemes that implement it, a file each.

A new scheme is one new file here, a case in `Transports`, and its name in contract.validators.SCHEMES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from threading import Lock
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from pxe_fetch.contract.model import Proxy, Timeouts, Tls
from pxe_fetch.contract.record import record
from pxe_fetch.contract.registry import Login
from pxe_fetch.contract.url import Url, UrlError, parse, scheme_of
from pxe_fetch.contract.validators import SCHEMES
from pxe_fetch.deadline import Deadline
from pxe_fetch.errors import PolicyError

_UNSENDABLE = frozenset(b"\0\r\n")  # in a path of ftp or tftp: they would end it, and begin a command of their own


@record
class Request:
    """The bytes of `url` from `offset` on; with a `validator`, only if it still names them (If-Range).

    A transport that cannot stop at `end` answers to the end of the file, and the caller stops reading.
    """

    url: str
    offset: int = 0
    end: int | None = None  # offset behind the last byte; more than `offset`, at most the file's size
    validator: str | None = None  # a strong one that an earlier Body of the same url gave
    headers: Mapping[str, str] = field(default_factory=dict)  # for the url's own origin alone
    login: Login | None = None  # to the registry that the url leads to; None: it is none
    credentials: tuple[str, ...] = ()  # names of those that are in the headers and the url, for messages
    timeouts: Timeouts
    deadline: Deadline

    @property
    def is_ranged(self) -> bool:
        """Whether less than the whole file is asked for."""
        return self.offset > 0 or self.end is not None


class Body(Protocol):
    """The bytes of an answer. What has nothing else to say inherits the defaults."""

    start: int = 0  # offset of the first byte: the request's, or 0
    total: int | None = None  # bytes of the whole file, as the server says; if its chunks tell, once they have ended
    is_exact: bool = True  # False: the server said so beside the body, which may end sooner or later
    validator: str | None = None  # a strong ETag, which names exactly these bytes on this server, for the next Request
    final_url: str | None = None  # redacted; where redirects led to, if there were any
    remark: str = ""  # what is odd about the answer, if it explains wrong bytes
    is_page: bool = False  # the server calls it a web page: perhaps a login, or an error that will be over soon
    ranged: bool = True  # False: the answer shows that this server begins every file at 0
    offers_ranges: bool = False  # the server says so, or has sent one

    def readinto(self, view: memoryview) -> int:
        """Put the bytes that have arrived into `view`, and return their number, 0 at the end. Waits for one byte.

        Raises only FetchError: NetworkError when no byte comes for `timeouts.read`, or the body ends early;
        DeadlineError and StoppedError of the request's deadline, which is checked several times a second, by whichever
        thread.
        """

    def close(self) -> None:
        """Keep the connection for the next request if the body was read to its end, else close it."""


class Transport(Protocol):
    """One or more schemes."""

    def open(self, request: Request) -> Body:
        """Ask for the bytes of `request`. A server without ranges answers from 0, which is no error.

        Raises only FetchError: NetworkError (RangeError if it is about the range), NotFoundError,
        RefusedError, PolicyError, TrustError, DeadlineError, StoppedError; never DiskError, which is about this node.
        """

    def close(self) -> None:
        """Close every connection that is kept for later, if any."""
        return


def parse_url(text: str) -> Url:
    """The parts of `text`. Raises PolicyError where it is no URL."""
    try:
        return parse(text)
    except UrlError as error:
        raise PolicyError(f"the URL {error}") from error


class FtpUrl(NamedTuple):
    """A file on a server of ftp or tftp."""

    host: str
    port: int
    server: str  # how messages call it
    path: bytes  # percent-decoded; relative to where the server begins, unless the URL has `//` or `/%2F` there


def parse_ftp_url(url: str, *, suffix: str) -> FtpUrl:
    """What `url` names. An explicit binary mode, `suffix`, is taken off.

    RFC 1738 3.2 (ftp: `;type=i`), RFC 3617 (tftp: `;mode=octet`). Raises PolicyError for what cannot be asked for.
    """
    parts = parse_url(url)
    scheme, text = parts.scheme, parts.path.removesuffix(suffix)
    path = unquote_to_bytes(text.removeprefix("/"))
    if parts.userinfo is not None:
        raise PolicyError(f"{scheme} is anonymous here: a user name and password would be sent in the clear")
    if parts.query:
        raise PolicyError(f"{scheme} URLs have no query; write %3F for a ? in a name")
    if f"{suffix.partition('=')[0]}=" in text:
        raise PolicyError(f"{scheme} URLs support only {suffix}, because the digest is that of the file's bytes")
    if not path or path.endswith(b"/"):
        raise PolicyError(f"the {scheme} URL names no file")
    if not _UNSENDABLE.isdisjoint(path):
        raise PolicyError(f"the {scheme} URL has a line break or NUL in its path")
    return FtpUrl(parts.host, parts.port, f"{parts.host}:{parts.port}", path)


def has_ranges(url: str) -> bool:
    """Whether the scheme of `url` can ask for a part of a file; tftp cannot (RFC 1350)."""
    return scheme_of(url) != "tftp"


class Transports:
    """All schemes, for use from several threads; connections are kept for the whole run.

    A scheme's module, which imports this one, is imported when the scheme is first used.
    """

    def __init__(
        self, *, tls: Tls | None = None, proxy: Proxy | None = None, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        """`warn` is told in a sentence what the user should know, though nothing has failed."""
        self._warn = warn
        self._tls = tls or Tls()
        self._proxy = proxy or Proxy()
        self._made: dict[str, Transport] = {}
        self._lock = Lock()

    def of(self, url: str) -> Transport:
        """The transport for `url`, which looks at the rest of it. Raises PolicyError for an unknown scheme."""
        kind = "http" if (scheme := scheme_of(url)) == "https" else scheme
        with self._lock:
            if kind not in self._made:
                self._made[kind] = self._make(kind)
            return self._made[kind]

    def _make(self, kind: str) -> Transport:
        match kind:
            case "http":
                from pxe_fetch.transport.http import HttpTransport

                return HttpTransport(tls=self._tls, proxy=self._proxy, warn=self._warn)
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
