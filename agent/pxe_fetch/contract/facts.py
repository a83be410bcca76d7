"""The facts about a node that urls, destinations and headers refer to as `${fact}`, and the kernel command line.

Its arguments are facts too, and the agent has some of its own there. Words are as the kernel splits them
(Documentation/admin-guide/kernel-parameters.rst, lib/cmdline.c `next_arg`): blanks separate words, double quotes
protect blanks and are not part of the value, the first `=` ends the name, `-` and `_` are the same in names, and the
last of several with one name wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from urllib.parse import quote

from pxe_fetch.contract import quantity
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError, printable
from pxe_fetch.contract.record import record

PREFIX = "pxe-fetch"  # of the agent's own arguments
# Fact -> where a node gets it from, for the error that it is empty.
FACTS = {
    "mac": "the interface with the default route (/sys/class/net/*/address)",
    "serial": "the firmware (/sys/class/dmi/id/product_serial)",
    "uuid": "the firmware (/sys/class/dmi/id/product_uuid)",
    "hostname": "the kernel (/proc/sys/kernel/hostname)",
    "machine_id": "/etc/machine-id",
    "arch": "uname -m",
}
CMDLINE = "cmdline."  # ${cmdline.role}: the kernel argument role=…
KNOWN = ", ".join([*FACTS, f"{CMDLINE}NAME"])  # for messages

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


@record
class KernelArguments:
    """The agent's own arguments, and all others by name (`_` for `-`; a bare word has the value "")."""

    off: bool = False
    config: str | None = None  # URL
    config_sha256: str | None = None
    base_url: str | None = None
    artifact_url: str | None = None
    deadline: float | None = None  # seconds, of the whole run
    report: str | None = None  # URL
    debug: bool = False
    others: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> KernelArguments:
    """The arguments on the command line `text`. Raises ProblemError if one of the agent's own is unknown or invalid."""
    others: dict[str, str] = {}
    own: dict[str, str] = {}
    for word in split(text):
        name, _, value = word.replace('"', "").partition("=")
        first, _, rest = argument(name).partition(".")
        if first == "pxe_fetch":
            own[rest] = value
        else:
            others[argument(name)] = value
    if unknown := own.keys() - {"", *NAMES}:
        known = ", ".join(f"{PREFIX}.{name}" for name in NAMES)
        message = (
            f"unknown kernel argument {PREFIX}.{printable(min(unknown))}; the agent knows {PREFIX}=off and {known}"
        )
        raise _invalid(message)
    sha256, deadline = own.get("config.sha256"), own.get("deadline")
    if sha256 is not None and "config" not in own:
        raise _invalid(f"{PREFIX}.config.sha256 is given without {PREFIX}.config")
    if sha256 is not None and not re.fullmatch(r"(sha256:)?[0-9a-fA-F]{64}", sha256):
        wrong = f"{PREFIX}.config.sha256={printable(sha256)}"
        raise _invalid(f"{wrong} is not a SHA-256 digest of 64 hexadecimal digits")
    try:
        seconds = None if deadline is None else quantity.duration(deadline)
    except RuleError as error:
        wrong = f"{PREFIX}.deadline={printable(deadline or '')}"
        raise _invalid(f"{wrong} {error.message}: {error.label}") from None
    return KernelArguments(
        off=not _is_on(own.get("", "on")),
        config=own.get("config"),
        config_sha256=sha256 and sha256.lower().removeprefix("sha256:"),
        base_url=own.get("base_url"),
        artifact_url=own.get("artifact_url"),
        deadline=seconds,
        report=own.get("report"),
        debug=_is_on(own.get("debug", "off")),
        others=others,
    )


def split(text: str) -> list[str]:
    """The words of a command line, their quotes still in place."""
    return re.findall(r'(?:[^\s"]|"[^"]*(?:"|$))+', text)


ISO_SHA256 = "iso.sha256"  # for the initrd, which has verified the ISO by then
NAMES = ("config", "config.sha256", "base_url", "artifact_url", "deadline", "report", "debug", ISO_SHA256)


def _is_on(value: str) -> bool:
    is_on = value.lower() in {"on", "yes", "true", "1", ""}
    if not is_on and value.lower() not in {"off", "no", "false", "0"}:
        raise _invalid(f"{PREFIX}={printable(value)} is neither on nor off")
    return is_on


def _invalid(message: str) -> ProblemError:
    return ProblemError(Problem(reference="kernel-argument-invalid", message=message))


def argument(name: str) -> str:
    """The name of a kernel argument as the kernel sees it: `-` and `_` are the same."""
    return name.replace("-", "_")


def references(text: str) -> tuple[str, ...]:
    """The names in `text`'s `${…}`, in order."""
    return tuple(match[1] for match in _REFERENCE.finditer(text))


def is_known(name: str) -> bool:
    """Whether `name` is a fact or a kernel argument."""
    return name in FACTS or (name.startswith(CMDLINE) and len(name) > len(CMDLINE))


def fill(text: str, lookup: Callable[[str], str]) -> str:
    """`text` with each `${name}` replaced by `lookup(name)`; errors of `lookup` propagate."""
    if "${" not in text:
        return text
    return _REFERENCE.sub(lambda match: lookup(match[1]), text)


def fill_url(url: str, lookup: Callable[[str], str]) -> str:
    """As `fill`, with each value percent-encoded, so that it stays in one segment of the path (RFC 3986, 3.3)."""
    return fill(url, lambda name: quote(lookup(name), safe=":@"))
