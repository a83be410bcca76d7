"""Parse, join and redact URLs (RFC 3986), alone and in tiers of mirrors. No other module takes a URL apart.

A URL stays as written, since a signature may cover every character: nothing is decoded and encoded again, and a path
keeps its `..`. Only characters that a request must not contain are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import field
from functools import lru_cache
from typing import NamedTuple

from pxe_fetch.contract.record import record

Tiers = tuple[tuple[str, ...], ...]  # mirrors: those of a tier are asked only while all of the tiers before it fail
DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21, "tftp": 69}  # each of these needs a host

# RFC 3986, appendix B. An empty authority (`http:///x`) differs from none at all.
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?", re.ASCII)
_REGISTERED_NAME = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]+", re.ASCII)  # RFC 3986, 3.2.2
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})", re.ASCII)
# Not allowed in a path or query: characters that RFC 3986, 3.3 and 3.4 does not list, and a % without two digits.
# Brackets are not allowed either, but all clients send them unchanged.
_FORBIDDEN = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9!$&'()*+,/:;=?@\[\]~._%-]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AMBIGUOUS = re.compile("[\u00df\u03c2\u200c\u200d]")  # IDNA 2003 and 2008 encode them differently
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d+)", re.ASCII)  # an address of IPv6 has it behind its brackets
_LONGEST_LABEL = 63  # RFC 1035, 2.3.4
_LARGEST_PORT = 65535


class UrlError(ValueError):
    """The text is not a URL. The message follows "the URL", and repeats no part of it, which may be secret."""


class Origin(NamedTuple):
    """The server of a URL (RFC 6454): headers and secrets for one origin are sent to no other."""

    scheme: str
    host: str
    port: int


@record
class Url:
    """An absolute URL. `str` omits what may be secret: userinfo, query and fragment."""

    raw: str = field(repr=False)  # as it was written
    scheme: str  # in lower case
    userinfo: str | None = field(repr=False)  # `name:password`, percent-encoded as written
    host: str  # in lower case and ASCII; an IPv6 address without its brackets; "" if the scheme needs none
    port: int  # the scheme's default if none is written; 0 if it has no default
    host_and_port: str  # as written, without userinfo: the Host field (RFC 9110, 7.2)
    path: str  # as written, with forbidden characters encoded; may be empty
    query: str | None = field(repr=False)  # likewise, without the `?`
    fragment: str | None = field(repr=False)  # as written; never sent

    @property
    def origin(self) -> Origin:
        """Scheme, host and port, which identify the server."""
        return Origin(self.scheme, self.host.rstrip("."), self.port)

    @property
    def path_and_query(self) -> str:
        """The request target; an empty path becomes `/` (RFC 9112, 3.2.1)."""
        return (self.path or "/") + ("" if self.query is None else f"?{self.query}")

    @property
    def request_url(self) -> str:
        """The URL to request: without userinfo and fragment."""
        return f"{self.scheme}://{self.host_and_port}{self.path_and_query}"

    @property
    def path_bytes(self) -> bytes:
        """The path percent-decoded, in the encoding of the server's file names."""
        return _ENCODED.sub(lambda octet: chr(int(octet[1], 16)), self.path).encode("latin-1")

    def __str__(self) -> str:
        return redact(self.raw)


def parse(text: str) -> Url:
    """Parse the absolute URL `text`, of any scheme. Raises UrlError."""
    scheme, authority, path, query, fragment = _parts(text)
    if _CONTROL.search(text):
        raise UrlError("contains a control character")
    if scheme is None:
        raise UrlError("has no scheme")
    scheme = scheme.lower()
    userinfo, at, place = (authority or "").rpartition("@")
    default = DEFAULT_PORTS.get(scheme, 0)
    host, port, shown = _host_and_port(place, default=default)
    if not host and default:
        raise UrlError("names no host")
    return Url(
        raw=text,
        scheme=scheme,
        userinfo=userinfo if at else None,
        host=host.lower(),
        port=port,
        host_and_port=shown,
        path=_sendable(path),
        query=None if query is None else _sendable(query),
        fragment=fragment,
    )


def join(base: Url, reference: str | bytes) -> Url:
    """Resolve `reference`, found at `base`. Raises UrlError.

    RFC 3986, 5.2.2, strictly (`http:x` is not relative), with one exception: a reference that names a host is a whole
    URL, and keeps the dot segments of its path. `bytes` come from a header: those beyond ASCII are
    percent-encoded one by one, whatever their encoding.
    """
    text = reference
    if not isinstance(text, str):
        text = "".join(chr(octet) if octet < 0x80 else f"%{octet:02X}" for octet in text)  # noqa: PLR2004  ASCII's end
    scheme, authority, path, query, fragment = _parts(text)
    if scheme is not None:
        return parse(text)
    if authority is not None:
        return parse(f"{base.scheme}:{text}")
    if not path:
        path = base.path
        query = base.query if query is None else query
    else:
        path = _without_dots(path if path.startswith("/") else f"{base.path.rpartition('/')[0]}/{path}")
    userinfo = "" if base.userinfo is None else f"{base.userinfo}@"
    rest = ("" if query is None else f"?{query}") + ("" if fragment is None else f"#{fragment}")
    return parse(f"{base.scheme}://{userinfo}{base.host_and_port}{path}{rest}")


def below(base: str, reference: str) -> str:
    """The relative `reference` joined to the URL `base`, whose path ends in `/`; both may hold ${facts}.

    Dot segments are removed (RFC 3986, 5.2.4), also if they lead out of the base. A slash in front makes no difference.
    """
    scheme, authority, folder, _, _ = _parts(base)
    path, mark, rest = reference.partition("?")
    return f"{scheme}://{authority or ''}{_without_dots(folder + path.lstrip('/'))}{mark}{rest}"


def comparable(text: str) -> str:
    """The absolute URL `text` so that those of the same server begin alike; what follows the server is as written.

    Scheme and host are in lower case (RFC 3986, 6.2.2.1), and a default port is left out (6.2.3). A host with ${facts}
    stays as it is.
    """
    scheme, authority, _, _, _ = _parts(text)
    if scheme is None or not authority or "$" in authority:
        return text
    rest = text[len(scheme) + len("://") + len(authority) :]
    place = authority.lower().removesuffix(f":{DEFAULT_PORTS.get(scheme.lower(), '')}").removesuffix(":")
    return f"{scheme.lower()}://{place}{rest}"


def scheme_of(text: str) -> str:
    """The scheme of `text` in lower case; "" for a relative reference."""
    return (_parts(text)[0] or "").lower()


def server_of(text: str) -> str:
    """Scheme, host and port of the absolute URL `text` in lower case, as far as they are written: `http://host:8080`."""
    scheme, authority, _, _, _ = _parts(text)
    return f"{scheme or ''}://{(authority or '').rpartition('@')[2]}".lower()


def is_absolute(text: str) -> bool:
    """Whether `text` begins with a scheme."""
    return scheme_of(text) != ""


def with_query(text: str, query: str) -> str:
    """The URL `text` with `query` at the end of its query, if it is one of http or https; else as it is."""
    if not query or scheme_of(text) not in {"http", "https"}:
        return text
    url, mark, fragment = text.partition("#")
    joint = "?" if "?" not in url else "" if url.endswith(("?", "&")) else "&"
    return f"{url}{joint}{query}{mark}{fragment}"


def is_exempt(url: Url, exemptions: Iterable[str]) -> bool:
    """Whether `url` is reached directly: its host is one of `exemptions`, as validators.exemption has them."""
    return any(_covers(entry, host=url.origin.host, port=url.port) for entry in exemptions)


def _covers(entry: str, *, host: str, port: int) -> bool:
    """Whether `entry` means `host`: "*", a network, a host, a domain's hosts, if with a `:PORT` then on that one."""
    entry = entry.lower()
    if match := _WITH_PORT.fullmatch(entry):
        entry = match[1]
        if int(match[2]) != port:
            return False
    domain = entry.removeprefix("*").strip(".")
    import ipaddress  # late: few configurations have exemptions

    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        domain = ""  # an address is in none
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    return entry == "*" or (bool(domain) and (host == domain or host.endswith(f".{domain}")))


def flat(tiers: Tiers) -> tuple[str, ...]:
    """The mirrors in the order of their tiers."""
    return tuple(url for tier in tiers for url in tier)


def each(tiers: Tiers, change: Callable[[str], str]) -> Tiers:
    """`tiers` with `change` made to each mirror."""
    return tuple(tuple(map(change, tier)) for tier in tiers)


def redact(text: str) -> str:
    """`text`, a supposed URL, without parts that may be secret; "(not a URL)" if it cannot be shown."""
    scheme, authority, path, _, _ = _parts(text)
    if not text.isprintable() or (authority is None and "@" in path):
        return "(not a URL)"
    place = "" if authority is None else f"//{authority.rpartition('@')[2]}"
    return ("" if scheme is None else f"{scheme}:") + place + path


def _parts(text: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    """Scheme, authority, path, query and fragment as written; None for those that are missing."""
    match = _PARTS.fullmatch(text)
    assert match  # noqa: S101  every text matches
    return match[1], match[2], match[3], match[4], match[5]


@lru_cache(maxsize=64)  # thousands of files may come from one server
def _host_and_port(place: str, *, default: int) -> tuple[str, int, str]:
    """Host, port, and both as in a Host field. Raises UrlError."""
    match = _HOST_AND_PORT.fullmatch(place)
    if not match:
        raise UrlError("has an invalid host or port")
    shown = match[1]
    if shown.startswith("["):
        host = _address(shown[1:-1])
    else:
        host = shown = _name(shown)
    digits = (match[2] or "").lstrip("0")
    if not match[2]:
        return host, default, shown
    if not digits or len(digits) > len(str(_LARGEST_PORT)) or int(digits) > _LARGEST_PORT:
        raise UrlError("has a port that is not from 1 to 65535")
    return host, int(digits), f"{shown}:{match[2]}"


def _address(text: str) -> str:
    """The IPv6 address between brackets; `%25` before its zone becomes `%` (RFC 6874)."""
    import ipaddress

    address = text.replace("%25", "%", 1)
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise UrlError("has no valid IPv6 address in its brackets") from None
    return address


def _name(text: str) -> str:
    """A host name for DNS: percent-decoded, in ASCII. Raises UrlError."""
    try:
        octets = re.split(_ENCODED, text)  # text and hexadecimal digits in turn
        name = b"".join(bytes.fromhex(one) if index % 2 else one.encode() for index, one in enumerate(octets)).decode()
        if not name.isascii():
            if _AMBIGUOUS.search(name):
                raise UrlError("has a host name that must be written in its ASCII form, xn--…")
            name = name.encode("idna").decode("ascii")
    except UnicodeError:
        raise UrlError("has an invalid host name") from None
    if not name:
        return name
    if not _REGISTERED_NAME.fullmatch(name):
        raise UrlError("has a host name with invalid characters")
    if not all(0 < len(label) <= _LONGEST_LABEL for label in name.removesuffix(".").split(".")):
        raise UrlError("has a host name with a part that is empty or longer than 63 characters")
    return name


def _sendable(text: str) -> str:
    try:
        return _FORBIDDEN.sub(lambda match: "".join(f"%{octet:02X}" for octet in match[0].encode()), text)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise UrlError("contains an invalid character") from None


def _without_dots(path: str) -> str:
    """`path` with `.` and `..` segments removed (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    ends_in_folder = segments[-1] in {".", ".."}
    return "/" + "/".join([*kept, ""] if ends_in_folder else kept)
