"""Where a URL of http or https leads, and what is asked for there."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pxe_fetch.contract.validators import PLAIN_URL
from pxe_fetch.errors import PolicyError

PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x20\x7f]")  # no host has them, whoever is asked for its address
# What may not stand in the path and query of a request as it is: RFC 3986, and a % that begins no octet.
_UNSENDABLE = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9!#$%&'()*+,/:;=?@\[\]~._-]+", re.ASCII)


class Origin(NamedTuple):
    """A server as a URL names it."""

    scheme: str  # in lower case
    host: str
    port: int
    place: str  # host and port as they are written, for the Host field (RFC 9110 7.2)
    authorization: str | None  # the URL's own credentials, as a field's value (RFC 7617)

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme == "https"


def parse(url: str) -> tuple[Origin, str]:
    """Where `url` leads, and its path and query as they are sent. Raises PolicyError for what leads nowhere."""
    if plain := PLAIN_URL.fullmatch(url):
        return origin(plain[1]), plain[2]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _unreadable() from error
    query = f"?{_sendable(parts.query)}" if parts.query else ""
    return origin(f"{parts.scheme}://{parts.netloc}"), _sendable(parts.path or "/") + query


@lru_cache(maxsize=32)
def origin(url: str) -> Origin:
    """Where `url` leads. Raises PolicyError."""
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError as error:
        raise _unreadable() from error
    if not parts.hostname or scheme not in PORTS:
        raise PolicyError("the URL, or its proxy's, names no host")
    if _CONTROL.search(parts.hostname):
        raise PolicyError("the URL, or its proxy's, is not valid")
    place = parts.netloc.rpartition("@")[2]
    return Origin(scheme, parts.hostname, port or PORTS[scheme], place, _authorization(parts))


def _unreadable() -> PolicyError:
    return PolicyError("not a URL: its host or port cannot be read")


def _sendable(text: str) -> str:
    return _UNSENDABLE.sub(lambda match: quote(match[0], safe=""), text)


def _authorization(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return f"Basic {b64encode(secret).decode()}"
