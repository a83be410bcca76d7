"""Rules for single values: names, URLs, digests, destinations, modes. Each returns the value or raises RuleError."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pxe_fetch.contract import facts
from pxe_fetch.contract.paths import LONGEST_NAME, LONGEST_PATH, Places
from pxe_fetch.contract.problem import RuleError, is_shown, suggestion
from pxe_fetch.contract.url import Url, UrlError, below, is_absolute, join, parse

T_co = TypeVar("T_co", covariant=True)
Rule = Callable[[str], T_co]


SCHEMES = ("http", "https", "ftp", "tftp", "file")  # each has a module in pxe_fetch.transport

MODE = re.compile(r"[0-7]{3,4}", re.ASCII)
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?|[0-9]{1,10}", re.ASCII)  # useradd(8), or an id
_LARGEST_ID = 2**32 - 2  # the next one stands for "unchanged" (chown(2))
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)  # RFC 9110, section 5.6.2
# "*"; an address or network; an IPv6 address in brackets; `name`, `.name` or `*.name`. The last two may have a port.
EXEMPTION = re.compile(
    r"\*|[0-9A-Fa-f.:]+(/[0-9]{1,3})?"
    r"|(\[[0-9A-Fa-f.:]+\]|(\*?\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*)(:[0-9]{1,5})?",
    re.ASCII,
)
# The last two are of the connection, not for the server of a url.
_OWN_HEADERS = (
    *("range", "if-range", "accept-encoding", "host", "content-length", "transfer-encoding"),
    *("connection", "proxy-authorization"),
)
PROTECTED_PLACES = Places()
_LONGEST_WORD = 32  # characters that are compared with the words to choose from
_ANYWHERE = parse("http://h/")  # base for checking relative urls


@dataclass(frozen=True, slots=True)
class Matching:
    """A rule that accepts text matching a pattern."""

    pattern: str
    message: str
    reference: str
    label: str = ""
    meant: str = "{}"  # what a text that lacks a part of it probably means

    def __call__(self, text: str) -> str:
        if not self.accepts(text):
            near = self.meant.format(text)
            hint = f"did you mean `{near}`?" if self.accepts(near) else ""
            raise RuleError(self.message, reference=self.reference, label=self.label, hint=hint)
        return text

    def accepts(self, text: str) -> bool:
        """Whether `text` matches."""
        return bool(re.fullmatch(self.pattern, text, re.ASCII))


name = Matching(  # an artifact's
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "is not a name",
    reference="name-invalid",
    label="letters, digits, `.`, `_`, `-`; at most 64, the first a letter or digit",
)
version = Matching(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}", "is not a version", reference="version-invalid", label="as in 0.4")
unit = Matching(  # systemd.unit(5)
    r"[A-Za-z0-9:_.\\][A-Za-z0-9:_.\\@-]{0,239}\.(service|socket|target|path|timer|mount|automount|swap|slice|scope|device)",
    "is not the name of a unit",
    reference="unit-invalid",
    label="as in app.service",
    meant="{}.service",
)
credential = Matching(  # below $CREDENTIALS_DIRECTORY; matches the unit's ImportCredential=
    r"pxe-fetch\.[A-Za-z0-9._-]{1,200}",
    "is not the name of a credential",
    reference="credential-invalid",
    label="pxe-fetch. and letters, digits, `.`, `_`, `-`",
    meant="pxe-fetch.{}",
)
file_name = Matching(r"[^\0]+", "is not a file name", reference="path-invalid")  # on the packing machine


class OneOf:
    """A rule that accepts one of `choices`."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def __call__(self, text: str) -> str:
        if text not in self.choices:
            label, hint = f"expected {self}", suggestion(text[:_LONGEST_WORD].lower(), self.choices)
            raise RuleError("is not known", reference="choice-invalid", label=label, hint=hint)
        return text

    def __str__(self) -> str:
        """The choices: `none, tar or decompress`."""
        return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"


def account(text: str) -> str:
    """The name of a user or group, or its number."""
    if not ACCOUNT.fullmatch(text) or (text.isdigit() and int(text) > _LARGEST_ID):
        label = f"a name, or a number up to {_LARGEST_ID}"
        raise RuleError("is not the name of a user or group", reference="account-invalid", label=label)
    return text


def any_text(text: str) -> str:
    """Any text that is not empty and on one line."""
    if not text or not is_shown(text):
        raise RuleError("must be text on one line", reference="text-invalid")
    return text


def url(text: str, *, place: str = "header_credential") -> str:
    """An absolute URL with a supported scheme, or one relative to base_url; may contain ${facts}.

    `place` is the key for a credential that does not belong in it.
    """
    templated(text)
    if not text or not is_shown(text) or " " in text:
        raise RuleError("is not a URL", reference="url-invalid", hint="percent-encode blanks: %20")
    # A fact may be the host or the port, so the parts are checked with a harmless word in its place.
    filled = facts.fill(text, lambda _: "1")
    if filled.startswith("//"):
        raise RuleError("has no scheme", reference="url-invalid", hint="put http: or https: in front of it")
    whole = is_absolute(filled)
    if whole and not filled.partition("//")[2].partition("/")[0].isascii():
        # The frozen agent omits Unicode's tables: a megabyte, and some milliseconds of every boot.
        hint = "write its ASCII form, xn--…"
        raise RuleError("has a host name that is not ASCII", reference="url-invalid", hint=hint)
    try:
        found = parse(filled) if whole else join(_ANYWHERE, filled)
    except UrlError as error:
        raise RuleError(str(error), reference="url-invalid") from None
    _check_parts(found, place=place)
    return text


def _check_parts(found: Url, *, place: str) -> None:
    """Check that the agent can request `found`, without showing a secret in logs: that belongs in `place`."""
    if found.userinfo:
        message = "contains a user name or password, which logs would show"
        raise RuleError(message, reference="url-secret", hint=f"put it in a credential, and name that in {place}")
    if found.scheme not in SCHEMES:
        label = f"one of {', '.join(SCHEMES)}"
        raise RuleError(f"has the scheme `{found.scheme}`", reference="scheme-unknown", label=label)
    is_elsewhere = found.host not in {"", "localhost"} or not found.path.startswith("/")
    for is_wrong, message, hint in (
        (found.fragment, "has a fragment, which is never sent to a server", "percent-encode #: %23"),
        (found.scheme == "file" and is_elsewhere, "is not a file of this node", "write file:///path"),
        (found.query and "ftp" in found.scheme, "has a query, unlike ftp and tftp", "percent-encode ?: %3F"),
    ):
        if is_wrong:
            raise RuleError(message, reference="url-invalid", hint=hint)


def http_url(text: str, *, place: str = "header_credential") -> str:
    """An absolute URL by http or https."""
    url(text, place=place)
    if not text.startswith(("http://", "https://")):
        raise RuleError("must begin with http:// or https://", reference="url-invalid")
    return text


def proxy(text: str) -> str:
    """A proxy's URL, the same on every node."""
    return _fixed(http_url(text, place="proxy.credential, as user:password"))


def exemption(text: str) -> str:
    """What is reached without a proxy: a host, address or domain, each with an optional port, or a network."""
    valid = EXEMPTION.fullmatch(text)
    if valid and "/" in text:
        import ipaddress

        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            valid = None
    if not valid:
        hint = "a list of them: [cache.lan, .example.com, 10.0.0.0/8]"
        raise RuleError("is not a host, domain or network", reference="no-proxy-invalid", hint=hint)
    return text


def base_url(text: str) -> str:
    """A URL that relative ones are joined to. The result ends in `/`."""
    url(text)
    if not is_absolute(text):
        raise RuleError("must be absolute", reference="url-invalid", label="http://… or https://…")
    if "?" in text:
        raise RuleError("must have no query", reference="url-invalid", label="http://host/folder/")
    return text.rstrip("/") + "/"


def joined(urls: tuple[str, ...], base: str | None) -> tuple[str, ...]:
    """`urls`, with relative ones joined to `base` if there is one."""
    return urls if base is None else tuple(one if is_absolute(one) else below(base, one) for one in urls)


@dataclass(frozen=True, slots=True)
class DigestOf:
    """A rule that accepts a digest of `digits` hexadecimal digits, and returns it in lower case.

    The algorithm may be in front, as container registries write it (OCI image specification): `sha256:0123…`.
    """

    algorithm: str
    digits: int

    def __call__(self, text: str) -> str:
        text = text.removeprefix(f"{self.algorithm}:")
        if len(text) != self.digits or not re.fullmatch("[0-9a-fA-F]*", text):
            said = f"found {len(text)}" if len(text) != self.digits else "found others"
            raise RuleError(
                f"is not a {self.algorithm.upper().replace('SHA', 'SHA-')} digest",
                reference="checksum-invalid",
                label=f"expected {self.digits} hexadecimal digits, {said}",
                hint=f"`{self.algorithm}sum FILE` prints it; or give `source:` and pxe-pack computes it",
            )
        return text.lower()


def absolute_path(text: str) -> str:
    """An absolute path on the node, without `..`; a trailing slash is dropped. May contain ${facts}."""
    templated(text)
    if not text.startswith("/"):
        raise RuleError("must be an absolute path", reference="path-invalid", label="begins with /")
    if odd := next((character for character in text if not is_shown(character)), ""):
        message = f"has a character that cannot be shown: {odd!a}"
        raise RuleError(message, reference="path-invalid", hint="use characters that can be seen")
    if ".." in text.split("/"):
        raise RuleError("contains `..`", reference="path-climbs", hint="write the path without it")
    check_lengths(facts.fill(text, lambda _: ""))
    return posixpath.normpath(text).replace("//", "/")


def check_lengths(path: str) -> None:
    """Raise RuleError if Linux can have no file `path` (limits.h)."""
    longest = max(len(name.encode()) for name in path.split("/"))
    if longest > LONGEST_NAME:
        label = f"at most {LONGEST_NAME} bytes between two `/`"
        raise RuleError(f"has a name of {longest} bytes", reference="path-too-long", label=label)
    if (length := len(path.encode())) > LONGEST_PATH:
        raise RuleError(f"has {length} bytes", reference="path-too-long", label=f"at most {LONGEST_PATH}")


def node_path(text: str) -> str:
    """An absolute path, the same on every node."""
    return _fixed(absolute_path(text))


def _fixed(text: str) -> str:
    if facts.references(text):
        hint = "facts are allowed in urls, destinations and headers"
        raise RuleError("contains a fact, which is not filled in here", reference="fact-misplaced", hint=hint)
    return text


def root(text: str) -> str:
    """A folder below which artifacts may be installed."""
    path = absolute_path(text)
    if path == "/" or facts.references(path):
        raise RuleError("is too broad", reference="root-invalid", hint="name the folders that artifacts go below")
    place = PROTECTED_PLACES.of(path)
    if place and path.startswith(place):
        raise RuleError(f"is refused: {place} belongs to the system", reference="root-invalid", label=f"in {place}")
    return path


def mode(text: str) -> int:
    """Permission bits, written as octal text. The unit's RestrictSUIDSGID= allows no set-id bits."""
    if not MODE.fullmatch(text):
        raise RuleError("is not a mode", reference="mode-invalid", label='three or four octal digits, as in "0640"')
    if int(text, 8) & 0o6000:
        hint = "put a program that needs set-id bits into the image"
        raise RuleError("has set-id bits, which are never fetched", reference="mode-invalid", hint=hint)
    return int(text, 8)


def header_name(text: str) -> str:
    """An HTTP field name that the agent does not set itself."""
    if not _TOKEN.fullmatch(text):
        raise RuleError("is not the name of an HTTP header", reference="header-invalid")
    if text.lower() in _OWN_HEADERS:
        hint = "name a credential with user:password in proxy.credential" if text.lower().startswith("proxy") else ""
        raise RuleError("is set by the agent itself", reference="header-invalid", hint=hint)
    return text


def header_value(text: str) -> str:
    """An HTTP field value; may contain ${facts}."""
    templated(text)
    if not text.isascii() or not text.isprintable():
        raise RuleError("is not a valid HTTP header value", reference="header-invalid", label="printable ASCII")
    return text


def templated(text: str) -> str:
    """Text that may contain ${facts}: each must be known, and closed."""
    if "${" not in text:
        return text
    for reference in facts.references(text):
        if not facts.is_known(reference):
            hint = f"known facts: {facts.KNOWN}"
            raise RuleError(f"contains the unknown fact `{reference}`", reference="fact-unknown", hint=hint)
    if facts.fill(text, lambda _: "").find("${") >= 0:
        raise RuleError("contains a `${` that is not closed", reference="fact-unknown", hint="write ${fact}")
    return text
