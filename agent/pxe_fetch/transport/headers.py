"""What HTTP says in its header fields, written and read strictly: RFC 9110."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote

from pxe_fetch.contract.url import Url

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110 8.8.3
_BLANKS = " \t\r\n"  # around a value; the last two where it is folded. str.strip() takes more for a blank
_LONGEST_ETAG = 1024  # characters; longer ones are not worth sending back


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


def basic(userinfo: str) -> str:
    """The credentials of a URL, `name:password`, as the value of a field (RFC 7617)."""
    name, _, password = userinfo.partition(":")
    return f"Basic {b64encode(f'{unquote(name)}:{unquote(password)}'.encode()).decode()}"


def proxy_authorization(proxy: Url) -> dict[str, str]:
    """The field by which `proxy` is sent the user and password in its URL; empty without them."""
    return {} if proxy.userinfo is None else {"Proxy-Authorization": basic(proxy.userinfo)}


def strong_etag(value: str | None) -> str | None:
    """An ETag that names exactly these bytes; None for a weak one (W/"…"), which If-Range may not carry."""
    value = (value or "").strip(_BLANKS)
    return value if len(value) <= _LONGEST_ETAG and _STRONG_ETAG.fullmatch(value) else None


def retry_after(value: str | None, *, date: str | None) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110 10.2.3); None where it is missing or means nothing.

    `date` is the same answer's Date field: a node that has just booted may not know the time, and the server's own
    clock is what it meant.
    """
    value = (value or "").strip(_BLANKS)
    if re.fullmatch(r"\d+", value, re.ASCII):
        return float(value[:18])
    until, since = _moment(value), _moment(date or "") or datetime.now(UTC)
    return None if until is None else max(0.0, (until - since).total_seconds())


def _moment(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
