"""A URL taken apart, joined and shown: the one place that knows how (RFC 3986).

What was written stays as it was written, since a signature may cover every character of it: nothing is decoded and
encoded anew, and a path keeps its `..`. Only what no request may carry is percent-encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21, "tftp": 69}  # each of these names a host

# RFC 3986, appendix B: it tells an authority that is empty (`http:///x`) from none at all.
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?", re.ASCII)
_REGISTERED_NAME = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]+", re.ASCII)  # RFC 3986, 3.2.2
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})", re.ASCII)
# What may not stand in a path or query: whatever RFC 3986, 3.3 and 3.4 does not list, and a % that begins no octet.
# Brackets may not either, but servers get them as they are from everybody.
_FORBIDDEN = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9!$&'()*+,/:;=?@\[\]~._%-]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AMBIGUOUS = re.compile("[\u00df\u03c2\u200c\u200d]")  # IDNA 2003 and 2008 make different names of them
_LONGEST_LABEL = 63  # RFC 1035, 2.3.4
_LARGEST_PORT = 65535


class UrlError(ValueError):
    """The text is no URL. The message follows "the URL"; it repeats nothing of the text, where secrets may stand."""


class Origin(NamedTuple):
    """Whom a URL asks (RFC 6454): headers and secrets of one origin are sent to no other."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Url:
    """An absolute URL. `str` omits what may be secret: userinfo, query and fragment."""

    raw: str = field(repr=False)  # as it was written
    scheme: str  # in lower case
    userinfo: str | None = field(repr=False)  # `name:password`, percent-encoded as written
    host: str  # in lower case and ASCII; an address of IPv6 without its brackets; "" where the scheme needs none
    port: int  # the scheme's own where none is written; 0 where it has none
    host_and_port: str  # as written, without userinfo: the Host field (RFC 9110, 7.2)
    path: str  # as written, but for what may not be sent; may be empty
    query: str | None = field(repr=False)  # the same; without its `?`
    fragment: str | None = field(repr=False)  # as written; never sent

    @property
    def origin(self) -> Origin:
        """Scheme, host and port, by which servers are told apart."""
        return Origin(self.scheme, self.host.rstrip("."), self.port)

    @property
    def path_and_query(self) -> str:
        """What a request asks the host for; a path that is empty is `/` (RFC 9112, 3.2.1)."""
        return (self.path or "/") + ("" if self.query is None else f"?{self.query}")

    @property
    def request_url(self) -> str:
        """The whole as it is asked for: without userinfo and fragment."""
        return f"{self.scheme}://{self.host_and_port}{self.path_and_query}"

    @property
    def path_bytes(self) -> bytes:
        """The path percent-decoded, in whatever encoding the server has its names."""
        return _ENCODED.sub(lambda octet: chr(int(octet[1], 16)), self.path).encode("latin-1")

    def __str__(self) -> str:
        return redact(self.raw)


def parse(text: str) -> Url:
    """The URL that `text` is, of whatever scheme. Raises UrlError, also for a relative reference."""
    scheme, authority, path, query, fragment = _split(text)
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
    """What `reference` means where it was found at `base`. Raises UrlError.

    RFC 3986, 5.2.2, strictly (`http:x` is not relative), with one exception: a reference that names a host is a whole
    URL, and keeps the dot segments of its path. `bytes` are what came in a header: those beyond ASCII are
    percent-encoded one by one, whatever encoding they are in.
    """
    text = reference if isinstance(reference, str) else _ascii(reference)
    scheme, authority, path, query, fragment = _split(text)
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


def scheme_of(text: str) -> str:
    """The scheme that `text` begins with, in lower case; "" for a relative reference."""
    return (_parts(text)[0] or "").lower()


def is_absolute(text: str) -> bool:
    """Whether `text` begins with a scheme."""
    return scheme_of(text) != ""


def redact(text: str) -> str:
    """`text`, a URL or what was given as one, without what may be secret; "(not a URL)" if it cannot be shown."""
    scheme, authority, path, _, _ = _parts(text)
    if not text.isprintable() or (authority is None and "@" in path):
        return "(not a URL)"
    place = "" if authority is None else f"//{authority.rpartition('@')[2]}"
    return ("" if scheme is None else f"{scheme}:") + place + path


def _parts(text: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    """Scheme, authority, path, query and fragment as written; None for what is not there."""
    match = _PARTS.fullmatch(text)
    assert match  # noqa: S101  every text matches
    return match[1], match[2], match[3], match[4], match[5]


def _split(text: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    """The parts of `text`. Raises UrlError."""
    if _CONTROL.search(text):
        raise UrlError("has a control character in it")
    return _parts(text)


def _host_and_port(place: str, *, default: int) -> tuple[str, int, str]:
    """Host, port, and both as a Host field has them. Raises UrlError."""
    match = _HOST_AND_PORT.fullmatch(place)
    if not match:
        raise UrlError("has a host or port that cannot be read")
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
    """An address of IPv6 from between its brackets; the zone behind `%25` is named by `%` (RFC 6874)."""
    import ipaddress

    address = text.replace("%25", "%", 1)
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise UrlError("has something else than an IPv6 address in its brackets") from None
    return address


def _name(text: str) -> str:
    """A host name as DNS has it: percent-decoded, in ASCII. Raises UrlError."""
    try:
        name = _decoded(text) if "%" in text else text
        if not name.isascii():
            if _AMBIGUOUS.search(name):
                raise UrlError("has a host name that has to be written as DNS has it, with xn--…")
            name = name.encode("idna").decode("ascii")
    except UnicodeError:
        raise UrlError("has a host name that cannot be read") from None
    if not name:
        return name
    if not _REGISTERED_NAME.fullmatch(name):
        raise UrlError("has a host name with characters that none has")
    if not all(0 < len(label) <= _LONGEST_LABEL for label in name.removesuffix(".").split(".")):
        raise UrlError("has a host name with a part that is empty or longer than 63 characters")
    return name


def _decoded(text: str) -> str:
    octets = re.split(_ENCODED, text)  # text and hexadecimal digits in turn
    return b"".join(bytes.fromhex(part) if index % 2 else part.encode() for index, part in enumerate(octets)).decode()


def _ascii(octets: bytes) -> str:
    return "".join(chr(octet) if octet < 0x80 else f"%{octet:02X}" for octet in octets)  # noqa: PLR2004  ASCII's end


def _sendable(text: str) -> str:
    try:
        return _FORBIDDEN.sub(lambda match: "".join(f"%{octet:02X}" for octet in match[0].encode()), text)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise UrlError("has something in it that is no character") from None


def _without_dots(path: str) -> str:
    """`path` with its `.` and `..` followed (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    ends_in_folder = segments[-1] in {".", ".."}
    return "/" + "/".join([*kept, ""] if ends_in_folder else kept)
