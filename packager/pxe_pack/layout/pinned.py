"""The configuration that a layout's nodes fetch by URL, as the manifest records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pxe_fetch.contract import quantity, validators
from pxe_fetch.contract.model import MAX_SERIAL
from pxe_fetch.contract.problem import RuleError
from pxe_fetch.contract.url import UrlError, parse
from pxe_pack.layout import kernel_arguments

SCHEMES = ("http", "https", "ftp", "tftp")  # by which a node fetches a configuration
PINNED_SERIAL = "pinned_serial"  # in a manifest; it stays when the pin is removed, as nodes remember it too
_UNUSABLE = frozenset("\"'$\\<>`{}|^#")  # in a kernel argument, as GRUB, iPXE and the kernel read it; or never sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Pinned:
    """A pinned configuration."""

    name: str  # of its file
    url: str
    size: int  # bytes
    sha256: str  # of the file that was pinned; with a signature, nodes take newer ones too
    serial: int | None
    expires: int | None  # seconds since 1970
    signed_by: str | None  # the id of the key that has signed it; None: nodes compare the digest

    @property
    def arguments(self) -> dict[str, str]:
        """The kernel arguments that pin it, and their values."""
        digest = {} if self.signed_by else {kernel_arguments.CONFIG_SHA256: self.sha256}
        return {kernel_arguments.CONFIG: self.url, **digest}

    def document(self) -> dict[str, object]:
        """The pin as JSON values."""
        return {
            "name": self.name,
            "url": self.url,
            "size": self.size,
            "sha256": self.sha256,
            "serial": self.serial,
            "expires": None if self.expires is None else quantity.show_moment(self.expires),
            "signed_by": self.signed_by,
        }


def url_reason(url: str) -> str | None:
    """Why a configuration cannot be pinned at `url`, as the end of a sentence; None if it can."""
    try:
        parsed = parse(url)
    except UrlError as error:
        return str(error)
    if parsed.scheme not in SCHEMES:
        return f"has the scheme `{parsed.scheme}`, not one of {', '.join(SCHEMES)}"
    if parsed.userinfo is not None or parsed.fragment is not None:
        return "contains a user name, a password or a fragment"
    if not url.isascii() or not url.isprintable() or " " in url or _UNUSABLE & {*url}:
        return "contains a character that must be percent-encoded"
    if not urlsplit(url).path.strip("/") or url.partition("?")[0].endswith("/"):
        return "names no file"
    return None


def parse_pinned(document: object) -> Pinned:
    """The pin in a manifest's JSON value. Raises ValueError with the end of a sentence."""
    known = document if isinstance(document, dict) else {}
    name, url, expires, signed_by = (known.get(key) for key in ("name", "url", "expires", "signed_by"))
    if not (isinstance(name, str) and isinstance(url, str)):
        raise ValueError("is not an object with a name and a url")  # noqa: TRY004  of one kind with the others
    if reason := url_reason(url):
        raise ValueError(f"has a url that {reason}")
    if signed_by is not None and not isinstance(signed_by, str):
        raise ValueError("has a value of signed_by that is not text")
    size = _number(known, "size")
    if size is None:
        raise ValueError("has no size")
    try:
        sha256 = validators.DigestOf("sha256", 64)(str(known.get("sha256")))
        moment = None if expires is None else quantity.moment(str(expires))
    except RuleError as error:
        raise ValueError(f"has a value that {error.message}") from None
    serial = _number(known, "serial")
    return Pinned(name=name, url=url, size=size, sha256=sha256, serial=serial, expires=moment, signed_by=signed_by)


def serial_in(facts: Mapping[str, object]) -> int | None:
    """The highest serial that was pinned, of the `facts` of a manifest. Raises ValueError as parse_pinned does."""
    return _number(facts, PINNED_SERIAL)


def _number(document: Mapping[str, object], key: str) -> int | None:
    value = document.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SERIAL):
        raise ValueError(f"has a value of {key} that is not a whole number")
    return value
