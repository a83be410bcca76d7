"""Who may do what: a node reports with its layout's token; a person sees the page here, or with the password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from pxe_pack.collector.addresses import is_loopback
from pxe_pack.collector.layouts import ServedLayouts
from pxe_pack.input_file import read_input

ADDRESSES = 65536  # whose rates are remembered
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
MIN_SECRET = 16  # characters


class SecretError(Exception):
    """A file of secrets cannot be used; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """Whom a token belongs to."""

    layout: str
    mac: str = ""  # the node that it is for alone; empty: any node of the layout


class Tokens:
    """The tokens of the layouts: those in the file, of which a line is `TOKEN` or `NAME TOKEN`, and those in `layouts`.

    `Bearer TOKEN` is for every node of the layout. `Bearer MAC.CODE` is for one node, where CODE is the HMAC-SHA256
    (RFC 2104) of its MAC address (lower case, with colons) by TOKEN, in hexadecimal.
    """

    def __init__(self, file: Path | None, layouts: ServedLayouts, *, of_nodes_only: bool) -> None:
        self._of_nodes_only = of_nodes_only
        self._layouts = layouts
        self._names: dict[str, str] = {}  # token -> layout
        for line in secret_lines(file) if file else ():
            *name, token = line.split()
            if len(name) > 1:
                raise SecretError(f"{file} has a line that is neither `TOKEN` nor `NAME TOKEN`")
            self._names[_long_enough(token, file)] = name[0] if name else ""

    @property
    def are_known(self) -> bool:
        """Whether there is any; without one, no report is taken."""
        return bool(self._names or self._layouts.tokens)

    def sender(self, authorization: str) -> Sender | None:
        """Who sends this header field; None if nobody is known by it. Takes the same time for each wrong token."""
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = None
        mac, _, code = given.strip().partition(".")
        for token, layout in {**self._layouts.tokens, **self._names}.items():
            if hmac.compare_digest(given.strip().encode(), token.encode()) and not self._of_nodes_only:
                found = Sender(layout=layout)
            elif code and hmac.compare_digest(code.lower().encode(), node_code(token, mac.lower()).encode()):
                found = Sender(layout=layout, mac=mac.lower())
        return found


def node_code(token: str, mac: str) -> str:
    """The part of a node's own token that proves its MAC address."""
    return hmac.new(token.encode(), mac.encode(), hashlib.sha256).hexdigest()


class Visitors:
    """Decides who may see the page: who knows the password, or, without one, browsers on this machine."""

    def __init__(self, password_file: Path | None) -> None:
        self._password = _long_enough("\n".join(secret_lines(password_file)), password_file) if password_file else ""

    def refusal(self, request: Request) -> str:
        """Why this request may not see the page; "" if it may.

        Without a password, also the name by which the page is asked for has to be this machine's own: a page from
        elsewhere whose name leads here (DNS rebinding) must not read it.
        """
        if self._password:
            return "" if self._is_known(request.headers.get("authorization", "")) else "the page needs the password"
        host = request.headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if is_loopback(request.client.host if request.client else "") and name in _LOCAL_NAMES:
            return ""
        return "without --password-file the page is shown on the collector's own machine only, as http://localhost"

    @property
    def have_password(self) -> bool:
        """Whether a password would help."""
        return bool(self._password)

    def _is_known(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "basic":  # RFC 7617; any user
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:  # it is no base64, or no UTF-8
                return False
            return hmac.compare_digest(given.encode(), self._password.encode())
        # Fields come in Latin-1, whatever they were written in.
        return scheme.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), self._password.encode())


class RateLimit:
    """Lets each address send `rate` requests a second, and `burst` at once."""

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> requests left, at this time

    def allows(self, address: str) -> bool:
        """Whether a request from `address` is served; counts it if so."""
        now = time.monotonic()
        left, then = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        allowed = left >= 1
        self._left[address] = (left - allowed, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return allowed


# No script, style or picture but the page's own files; nobody else's page may frame it.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def secret_lines(file: Path) -> list[str]:
    """The lines of a file of secrets, without blank ones. Raises SecretError if there is none."""
    try:
        lines = [line.strip() for line in read_input(file).decode().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SecretError(f"{file} cannot be read: {reason}") from None
    if not lines:
        raise SecretError(f"{file} is empty")
    return lines


def _long_enough(secret: str, file: Path | None) -> str:
    if len(secret) < MIN_SECRET:
        raise SecretError(
            f"{file} has a secret of fewer than {MIN_SECRET} characters; `openssl rand -hex 32` makes one"
        )
    return secret
