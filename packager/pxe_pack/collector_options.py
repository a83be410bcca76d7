"""The options that the collector and `pxe-pack serve`, which starts one, both have.

Apart from the collector, whose libraries need not be installed where a layout is served without it.
"""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from pxe_fetch.contract.problem import RuleError
from pxe_fetch.contract.quantity import DURATION, DURATION_UNITS, size
from pxe_fetch.contract.url import UrlError, parse

HOW_TO_INSTALL = "install '.[serve]' with pip in a clone, or the release's wheel as 'FILE.whl[serve]'"
KEEP, KEEP_SIZE = "720h", "1GiB"
_SHARED = ("token_file", "node_tokens", "password_file", "keep", "keep_size", "failure_webhook", "failure_webhook_file")


def add_shared(parser: argparse._ActionsContainer) -> None:
    """Add the options. All of them are None or False unless they are given."""
    add = parser.add_argument
    add("--token-file", type=Path, metavar="FILE", help="tokens that nodes report with: lines of TOKEN or NAME TOKEN")
    add("--node-tokens", action="store_true", help="accept a report only with the node's own token")
    add("--password-file", type=Path, metavar="FILE", help="the page's password; without it, the page is local")
    add("--keep", type=_checked(long_duration), metavar="TIME", help=f"delete older runs (default: {KEEP})")
    add("--keep-size", type=_checked(size), metavar="SIZE", help=f"delete the oldest above it (default: {KEEP_SIZE})")
    add("--failure-webhook", type=_checked(webhook_url), metavar="URL", help="POST each node's failure there")
    add("--failure-webhook-file", type=Path, metavar="FILE", help="a file with that URL, if part of it is secret")


def add_proxy(parser: argparse._ActionsContainer, *, of: str) -> None:
    """Add `--proxy`, whose word on the client's address is taken; `of` says what they are."""
    parser.add_argument(
        "--proxy",
        type=ip_address,
        action="append",
        default=[],
        metavar="ADDRESS",
        help=f"{of} in X-Forwarded-For; repeatable",
    )


def listen_address(written: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Where to listen, ADDRESS:PORT on the command line; an IPv6 address is in brackets (RFC 3986, 3.2.2).

    A name is looked up here, so that it means the same to all servers; its IPv4 address is preferred. Raises
    argparse.ArgumentTypeError.
    """
    parts = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", written)
    if not parts or int(parts[3]) > 65535:  # noqa: PLR2004  16 bits
        raise argparse.ArgumentTypeError(f"{written!r} is not ADDRESS:PORT, as in 127.0.0.1:8787 or [2001:db8::1]:8787")
    try:
        address = IPv6Address(parts[1]) if parts[1] else _looked_up(parts[2])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{written!r}: {parts[1]} is not an IPv6 address") from None
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{written!r}: {parts[2]} has no address: {error.strerror}") from None
    if address.version == 6 and address.is_link_local:  # noqa: PLR2004
        # Its zone can be neither in nginx's proxy_pass nor in an http URL (RFC 9110, 4.2 and RFC 9844).
        raise argparse.ArgumentTypeError(f"{written!r} is link-local, and URLs cannot name it: use another address")
    return address, int(parts[3])


def _looked_up(name: str) -> IPv4Address | IPv6Address:
    """The address of this name. Raises OSError."""
    found = [ip_address(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    return min(found, key=lambda address: address.version)


def shared(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Those that are given, one word each, for another command line."""
    given = {f"--{name.replace('_', '-')}": getattr(arguments, name) for name in _SHARED}
    return tuple(name if value is True else f"{name}={value}" for name, value in given.items() if value)


def long_duration(text: str) -> float:
    """`text` in seconds; unlike a timeout, it may have any length. Raises RuleError."""
    match = DURATION.fullmatch(text)
    if not match:
        raise RuleError("is not a duration", reference="duration-invalid", label="expected one as in 12h or 720h")
    return float(match[1]) * DURATION_UNITS[match[2]] / 1000


def webhook_url(text: str) -> str:
    """`text`, an http or https URL. Raises RuleError, whose text does not show it: part of it may be secret."""
    try:
        if parse(text).scheme in ("http", "https"):
            return text
    except UrlError:
        pass
    raise RuleError("is not an http or https URL", reference="url-invalid")


def _checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """The text as it is given, if `read` can."""

    def checked(text: str) -> str:
        try:
            read(text)
        except RuleError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return checked
