"""http and https: URLs. Bytes are taken as they come over the wire; nothing is ever decoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pxe_fetch.contract.model import Proxy, Tls
from pxe_fetch.contract.url import Url, UrlError, join
from pxe_fetch.errors import NetworkError, PolicyError, RangeError, RefusedError, TrustError
from pxe_fetch.transport import Body, Request, parse_url
from pxe_fetch.transport.exchange import basic, refusal
from pxe_fetch.transport.session import Answer, Session

if TYPE_CHECKING:
    from pxe_fetch.transport.registry_login import Registries

REDIRECTS = 10  # followed for one request
_REDIRECTED = 3  # refusals in a row, until they are believed: the next redirect may have a fresh signature
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_OTHER_SUCCESSES = frozenset({201, 202, 204, 205})  # not the file; what is not known counts as 200 (RFC 9110, 15)
_RANGE_REFUSALS = frozenset({400, 406, 412, 416, 417, 431})  # of servers and caches that do not like Range or If-Range
_OK, _PARTIAL, _MULTIPLE, _BAD_REQUEST, _UNSATISFIABLE = 200, 206, 300, 400, 416
_OF_CREDENTIALS = frozenset({401, 403})
# S3 answers 400 to a session that has expired (Amazon S3 API Reference, Error Responses: ExpiredToken).
_IN_TEXT = re.compile(rb"<Code>[^<]*(Token|Authorization)")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{0,1022}"')  # RFC 9110 8.8.3; not a long one, to send it back
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_BLANKS = " \t\r\n"  # around a value; the last two where it is folded. str.strip() takes more for a blank


class HttpTransport:
    """Keeps connections per host for the whole run, shared by its threads."""

    def __init__(self, *, tls: Tls, proxy: Proxy, warn: Callable[[str], None] = lambda _: None) -> None:
        self._session = Session(tls=tls, proxy=proxy, warn=warn)

    @cached_property
    def _registries(self) -> Registries:
        from pxe_fetch.transport.registry_login import Registries  # most runs ask none

        return Registries(self._session)

    def open(self, request: Request) -> Body:
        own = url = parse_url(request.url)
        for _ in range(REDIRECTS + 1):
            answer = self._answer(url, request, own=own)
            if answer.status not in _REDIRECTS:
                return answer
            try:
                url = _next(url, answer)
            finally:
                answer.dismiss()
        # Not final: one server of several behind a name may be set up wrongly, or not yet.
        raise NetworkError(f"more than {REDIRECTS} redirects, the last to {url}", status=answer.status)

    def _answer(self, url: Url, request: Request, *, own: Url) -> Answer:
        """A redirect, or a body to take. Raises as `open` does; `own` is the URL that led here."""
        fields = _fields(request, url, own=own)
        try:
            if request.login and url.origin == own.origin:  # no storage that it redirects to is told who asks
                answer = self._registries.ask(url, login=request.login, fields=fields, request=request)
            else:
                answer = self._session.ask(url, request, fields=fields)
            if answer.status in _REDIRECTS:
                return answer
            answer.final_url = None if url is own else str(url)
            try:
                return _body(answer, request)
            except BaseException:
                answer.close()
                raise
        except (NetworkError, RefusedError, TrustError) as error:
            if url is not own:
                error.args = (f"{error} (after a redirect to {url})",)
                error.limit = max(error.limit, _REDIRECTED)
            raise

    def post(self, request: Request, body: bytes) -> int:
        """The status that answers `body`, be it a redirect's, which is not followed. Raises as `open` does."""
        to = parse_url(request.url)
        if to.scheme not in {"http", "https"}:
            raise PolicyError("the URL is not one of http or https")
        answer = self._session.ask(to, request, fields=_fields(request, to, own=to), body=body)
        answer.dismiss()
        return answer.status

    def close(self) -> None:
        self._session.close()


def _fields(request: Request, url: Url, *, own: Url) -> dict[str, str]:
    """The header fields for `url`, where `request`, for `own`, has led to. Secrets go to its own origin alone."""
    is_own = url is own or url.origin == own.origin
    fields = dict(request.headers) if is_own else {}  # the configuration may not have those that are ours, as Range
    userinfo = own.userinfo if is_own and url.userinfo is None else url.userinfo
    if userinfo is not None:
        fields["Authorization"] = basic(userinfo)
    if request.is_ranged:
        last = "" if request.end is None else request.end - 1
        fields["Range"] = f"bytes={request.offset}-{last}"
        if request.validator:
            fields["If-Range"] = request.validator
    return fields


def _body(answer: Answer, request: Request) -> Answer:
    """`answer` if it is one to take, else the error that its status means. Raises as Transport.open does."""
    # After a redirect the next one may lead to another server, which has the same bytes under another ETag.
    answer.validator = None if answer.final_url else strong_etag(answer.field("ETag"))
    kind = (answer.field("Content-Type") or "").partition(";")[0].strip().lower()
    answer.is_page = kind in _PAGES
    answer.remark = _remark(answer, kind)
    status = answer.status
    answer.offers_ranges = status == _PARTIAL or (answer.field("Accept-Ranges") or "").strip().lower() == "bytes"
    if status == _PARTIAL:
        _check_part(answer, request)
        return answer
    if _OK <= status < _MULTIPLE and status not in _OTHER_SUCCESSES:
        answer.total = answer.length
        # All of it in answer to a range over all of it says nothing.
        answer.ranged = not request.is_ranged or (request.offset == 0 and request.end == answer.total)
        return answer
    if request.is_ranged and status in _RANGE_REFUSALS:
        found = content_range(answer.field("Content-Range"))
        answer.dismiss()
        if status == _UNSATISFIABLE and found and found.start is None and found.total == request.offset:
            answer.start = answer.total = request.offset  # everything is here already
            return answer
        raise RangeError(f"the server refuses the range ({status})", status=status)
    text = answer.text()
    error = refusal(status, answer.field, answer.exchange, text=text)
    is_sent = request.credentials and answer.exchange.url.origin == parse_url(request.url).origin
    if (
        is_sent
        and not error.transient
        and (status in _OF_CREDENTIALS or (status == _BAD_REQUEST and _IN_TEXT.search(text)))
    ):
        names = " and ".join(request.credentials)
        raise RefusedError(f"{error}: the credential {names} may have expired, or not be for this file", status=status)
    raise error


def _check_part(answer: Answer, request: Request) -> None:
    """Take a 206 that is to the byte what was asked for (RFC 9110, 15.3.7), of its own accord only the whole file."""
    found = content_range(answer.field("Content-Range"))
    if found is None or found.start is None or found.end is None:
        raise RangeError("a partial answer (206) without a usable Content-Range", status=_PARTIAL)
    last = min((end for end in (request.end, found.total) if end is not None), default=found.end + 1) - 1
    if (found.start, found.end) != (request.offset, last):
        wanted = f"{request.offset} to {last} were" if request.is_ranged else "all bytes were"
        text = f"a partial answer (206) with the bytes {found.start} to {found.end}, when {wanted} asked for"
        raise RangeError(text, status=_PARTIAL)
    if answer.length not in {None, last - found.start + 1}:
        raise RangeError(f"a range of {last - found.start + 1} bytes in {answer.length}", status=_PARTIAL)
    if request.validator and answer.validator not in {None, request.validator}:
        raise RangeError("the file has changed on the server", status=_PARTIAL)
    answer.start, answer.total = found.start, found.total


def _remark(answer: Answer, kind: str) -> str:
    """What explains bytes that are wrong: the digest decides, since files are often labelled wrongly."""
    encoding = (answer.field("Content-Encoding") or "identity").lower()
    if encoding != "identity":
        told = f"sent with Content-Encoding {encoding[:40]}, which was not asked for"
        return f"{told}: switch compression off for it, on the server or on a proxy"
    sender = f" by {answer.final_url}" if answer.final_url else ""
    return f"sent as {kind}{sender}: a web page, perhaps a login or an error" if answer.is_page else ""


def _next(url: Url, answer: Answer) -> Url:
    """Where a redirect leads. Raises PolicyError where it may not lead, NetworkError where it leads nowhere."""
    location = answer.field("Location")
    if not location:
        raise NetworkError(f"a redirect ({answer.status}) without a Location", status=answer.status)
    try:
        target = join(url, location.encode("latin-1"))  # the bytes as they came, whatever encoding they are in
    except UrlError as error:
        raise NetworkError(f"a redirect ({answer.status}) whose Location {error}", status=answer.status) from error
    if target.scheme not in {"http", "https"}:
        raise PolicyError(f"a redirect to {target}, which is neither http nor https")
    if url.scheme == "https" and target.scheme == "http":
        raise PolicyError(f"a redirect from https to {target}, which is not protected")
    return target


class ContentRange(NamedTuple):
    """RFC 9110, 14.4: the bytes `start` to `end` (inclusive) of `total`. None: "*", not told."""

    start: int | None
    end: int | None
    total: int | None


def content_range(value: str | None) -> ContentRange | None:
    """A Content-Range field; None where it is missing, not in bytes, or contradicts itself."""
    match = _CONTENT_RANGE.fullmatch((value or "").strip(_BLANKS))
    if not match:
        return None
    start, end, total = (int(part) if part and part != "*" else None for part in match.groups())
    if start is not None and end is not None and not start <= end < (end + 1 if total is None else total):
        return None
    return ContentRange(start, end, total)


def strong_etag(value: str | None) -> str | None:
    """An ETag that names exactly these bytes; None for a weak one (W/"…"), which If-Range may not carry."""
    value = (value or "").strip(_BLANKS)
    return value if _STRONG_ETAG.fullmatch(value) else None
