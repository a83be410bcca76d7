"""The options that the collector and `pxe-pack serve`, which starts one, both have.

Apart from the collector, whose libraries need not be installed where a layout is served without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from pxe_fetch.contract.problem import RuleError
from pxe_fetch.contract.quantity import DURATION, DURATION_UNITS, size

HOW_TO_INSTALL = "install '.[serve]' with pip in a clone, or the release's wheel as 'FILE.whl[serve]'"
KEEP, KEEP_SIZE = "720h", "1GiB"
_SHARED = ("token_file", "node_tokens", "password_file", "keep", "keep_size", "failure_webhook")


def add_shared(parser: argparse._ActionsContainer) -> None:
    """Add the options. All of them are None or False unless they are given."""
    add = parser.add_argument
    add("--token-file", type=Path, metavar="FILE", help="tokens that nodes report with: lines of TOKEN or NAME TOKEN")
    add("--node-tokens", action="store_true", help="accept a report only with the node's own token")
    add("--password-file", type=Path, metavar="FILE", help="the page's password; without it, the page is local")
    add("--keep", type=_checked(long_duration), metavar="TIME", help=f"delete older runs (default: {KEEP})")
    add("--keep-size", type=_checked(size), metavar="SIZE", help=f"delete the oldest above it (default: {KEEP_SIZE})")
    add("--failure-webhook", metavar="URL", help="POST each node's failure there")


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


def _checked(parse: Callable[[str], float]) -> Callable[[str], str]:
    """The text as it is given, if `parse` can read it."""

    def checked(text: str) -> str:
        try:
            parse(text)
        except RuleError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return checked
