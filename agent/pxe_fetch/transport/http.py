"""http: and https: Bytes are taken as they come over the wire; nothing is ever decoded."""

from __future__ import annotations

from threading import Lock
from urllib.parse import urljoin, urlsplit

from pxe_fetch import __version__
from pxe_fetch.contract.model import Proxy, Tls
from pxe_fetch.errors import (
    FetchError,
    NetworkError,
    NotFoundError,
    PolicyError,
    RangeError,
    RefusedError,
)
from pxe_fetch.redact import redact
from pxe_fetch.transport import Body, Request
from pxe_fetch.transport.connections import Connections, Exchange, Sent
from pxe_fetch.transport.headers import content_length, content_range, retry_after, strong_etag
from pxe_fetch.transport.origin import PORTS
from pxe_fetch.transport.proxies import proxy_for

TYPE_CHECKING = False  # what is only named in a signature need not be imported at boot
if TYPE_CHECKING:
    import ssl

REDIRECTS = 10  # followed for one request
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({408, 425, 429})  # beside 5xx: the same request may succeed later
_DRAINED = 16 * 1024  # bytes of an answer's text read and thrown away, to keep the connection
_HURRY = 1.0  # seconds that text may take
_OK, _PARTIAL, _BAD_REQUEST, _NOT_FOUND, _UNSATISFIABLE, _SERVER_ERROR = 200, 206, 400, 404, 416, 500
_FIELDS = {"User-Agent": f"pxe-fetch/{__version__}", "Accept": "*/*"}  # a configuration may give others
_FIXED = {"Accept-Encoding": "identity", "Connection": "keep-alive"}  # the digest is of the file's bytes


class HttpTransport:
    """Keeps connections per host for the whole run, shared by its threads."""

    def __init__(self, *, tls: Tls, proxy: Proxy) -> None:
        self._proxy = proxy
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._lock = Lock()
        self._connections = Connections(tls=self._secure)

    def open(self, request: Request) -> Body:
        url = request.url
        for _ in range(REDIRECTS + 1):
            answer = self._ask(url, request)
            if answer.status not in _REDIRECTS:
                return _body(answer, request)
            try:
                url = _next(url, answer)
            finally:
                answer.dismiss()
        raise PolicyError(f"more than {REDIRECTS} redirects, the last to {redact(url)}")

    def close(self) -> None:
        self._connections.close()

    def _ask(self, url: str, request: Request) -> _Answer:
        request.deadline.check()
        proxy = proxy_for(url, self._proxy)
        try:
            left = max(0.001, request.deadline.left())
            sent = self._send(url, request, proxy=proxy, connect=min(request.timeouts.connect, left))
            exchange = sent.answer(silence=request.timeouts.read, deadline=request.deadline)
        except FetchError:
            raise
        except Exception as error:
            # http.client, ssl and sockets each let others of theirs through; one place tells what they mean.
            raise _explain(error, url, request, proxy=proxy) from error
        return _Answer(exchange, url=url, request=request, proxy=proxy)

    def _send(self, url: str, request: Request, *, proxy: str | None, connect: float) -> Sent:
        fields = dict(_FIELDS)
        if url == request.url or _origin(url) == _origin(request.url):
            fields |= request.headers  # contract.validators refuses those that are ours, as Range
        fields |= _FIXED  # the last of a name wins, however it is spelt
        if _is_ranged(request):
            last = "" if request.end is None else request.end - 1
            fields["Range"] = f"bytes={request.offset}-{last}"
            if request.validator:
                fields["If-Range"] = request.validator
        return self._connections.send(
            url,
            fields=fields,
            proxy=proxy,
            connect=connect,
            silence=request.timeouts.read,
            deadline=request.deadline,
        )

    def _secure(self) -> ssl.SSLContext:
        """The context of all secure connections, made when the first needs it: that takes tens of milliseconds."""
        with self._lock:
            if self._context is None:
                from pxe_fetch.transport.tls import context

                self._context = context(self._tls)
            return self._context


class _Answer:
    """What a server said to one request, its body still unread."""

    def __init__(self, exchange: Exchange, *, url: str, request: Request, proxy: str | None) -> None:
        self._exchange = exchange
        self._proxy = proxy
        self._body = exchange.response
        self._request = request
        self.url = url
        self.status = exchange.response.status

    @property
    def redirected(self) -> bool:
        """Whether another url than the request's gave it."""
        return self.url != self._request.url

    def field(self, name: str) -> str | None:
        return self._body.field(name)

    @property
    def length(self) -> int | None:
        """Bytes of the body as declared; None where its end is told by chunks or by the connection's end."""
        return None if self._body.chunked else content_length(self.field("Content-Length"))

    def readinto(self, view: memoryview) -> int:
        try:
            return self._body.take(view)
        except FetchError:
            raise
        except Exception as error:
            raise _explain(error, self.url, self._request, proxy=self._proxy) from error

    def dismiss(self) -> None:
        """Throw a short text away and keep the connection; close it where that would take long."""
        self._body.hurry(_HURRY)
        view = memoryview(bytearray(_DRAINED))
        try:
            while view and (count := self.readinto(view)):
                view = view[count:]
        except NetworkError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        self._exchange.close()


class _HttpBody:
    """The body of a good answer."""

    def __init__(self, answer: _Answer, request: Request, *, start: int, total: int | None) -> None:
        self.readinto = answer.readinto
        self.close = answer.close
        self.start = start
        self.total = total
        # All of it in answer to a range over all of it says nothing.
        is_all = request.offset == 0 and request.end == total
        self.ranged = answer.status == _PARTIAL or not _is_ranged(request) or is_all
        # After a redirect the next one may lead to another server, which has the same bytes under another ETag.
        self.validator = None if answer.redirected else strong_etag(answer.field("ETag"))
        # The digest decides about the bytes as they came: a file stored compressed is often labelled so by mistake.
        encoding = (answer.field("Content-Encoding") or "identity").strip().lower()
        self.remark = "" if encoding == "identity" else f"sent with Content-Encoding {encoding[:40]}, not asked for"


def _body(answer: _Answer, request: Request) -> Body:
    """The body of `answer` if it is one to take. Raises as Transport.open does."""
    try:
        if answer.status == _OK:
            return _HttpBody(answer, request, start=0, total=answer.length)
        if answer.status == _PARTIAL:
            return _part(answer, request)
        error = _refusal(answer)
        if answer.status == _UNSATISFIABLE and _is_ranged(request):
            answered = content_range(answer.field("Content-Range"))
            if answered and answered.start is None and answered.total == request.offset:
                answer.dismiss()
                return _Nothing(start=request.offset)
            error = RangeError("the server has no such range", status=answer.status)
    except BaseException:
        answer.close()
        raise
    answer.dismiss()
    raise error


class _Nothing:
    """416 for a range that begins where the file ends: everything is here already."""

    validator = None
    remark = ""
    ranged = True

    def __init__(self, *, start: int) -> None:
        self.start = self.total = start

    def readinto(self, _view: memoryview) -> int:
        return 0

    def close(self) -> None:
        """The answer was dismissed."""


def _part(answer: _Answer, request: Request) -> Body:
    """A 206, if it is to the byte what was asked for: from the offset to the end that was named (RFC 9110 15.3.7)."""
    text = answer.field("Content-Range")
    answered = content_range(text)
    if answered is None or answered.start is None or answered.end is None:
        raise RangeError("a partial answer without a usable Content-Range", status=_PARTIAL)
    if not _is_ranged(request) or answered.start != request.offset:
        raise RangeError(f"bytes from {answered.start} on, when those from {request.offset} were asked for", status=206)
    last = [end - 1 for end in (request.end, answered.total) if end is not None]
    if last and answered.end != min(last):
        raise RangeError(f"bytes to {answered.end}, when those to {min(last)} were asked for", status=_PARTIAL)
    if answer.length not in {None, answered.end - answered.start + 1}:
        raise RangeError(f"a range of {answered.end - answered.start + 1} bytes in {answer.length}", status=_PARTIAL)
    body = _HttpBody(answer, request, start=answered.start, total=answered.total)
    if request.validator and body.validator not in {None, request.validator}:
        raise RangeError("the file has changed on the server", status=_PARTIAL)
    return body


def _is_ranged(request: Request) -> bool:
    """Whether less than the whole file is asked for."""
    return request.offset > 0 or request.end is not None


def _refusal(answer: _Answer) -> FetchError:
    """What a status that brings no bytes means."""
    status = answer.status
    text = f"the server answered {status}"
    if status == _NOT_FOUND:
        return NotFoundError(text, status=status)
    if status >= _SERVER_ERROR or status in _AGAIN:
        wait = retry_after(answer.field("Retry-After"), date=answer.field("Date"))
        return NetworkError(text, status=status, retry_after=wait)
    if status >= _BAD_REQUEST:
        return RefusedError(text, status=status)
    return NetworkError(f"{text}, which is no answer to a GET", status=status)


def _next(url: str, answer: _Answer) -> str:
    """Where a redirect leads. Raises PolicyError where it may not lead, NetworkError where it leads nowhere."""
    location = answer.field("Location")
    if not location:
        raise NetworkError(f"a redirect ({answer.status}) without a Location", status=answer.status)
    try:
        target = urljoin(url, location.strip())
        old, new = urlsplit(url).scheme.lower(), urlsplit(target).scheme.lower()
        origin = _origin(target)
    except ValueError as error:
        raise NetworkError("a redirect to what is not a URL", status=answer.status) from error
    if new not in PORTS or not origin[1]:
        raise PolicyError(f"a redirect to {redact(target)}, which is neither http nor https")
    if old == "https" and new == "http":
        raise PolicyError(f"a redirect from https to {redact(target)}, which is not protected")
    return target


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454): the custom fields of a request go to no other."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip("."), parts.port or PORTS.get(scheme, 0)


def _explain(error: Exception, url: str, request: Request, *, proxy: str | None) -> FetchError:
    from pxe_fetch.transport.causes import explain, place  # it knows all that ssl and http.client raise

    return explain(
        error,
        host=place(url),
        proxy=place(proxy) if proxy else None,
        timeouts=request.timeouts,
        clock=request.deadline.clock,
    )
