"""The kernel command line, and the agent's arguments on it.

Words as the kernel splits them (Documentation/admin-guide/kernel-parameters.rst, lib/cmdline.c `next_arg`): blanks
separate words, double quotes protect blanks and are not part of the value, the first `=` ends the name, `-` and `_` are
the same in names, and the last of several with one name wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pxe_fetch.contract import quantity
from pxe_fetch.contract.problem import RuleError, printable

PREFIX = "pxe-fetch"


@dataclass(frozen=True, kw_only=True, slots=True)
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


class KernelArgumentError(ValueError):
    """One of the agent's own arguments is unknown or has an invalid value."""


def parse(text: str) -> KernelArguments:
    """The arguments on the command line `text`. Raises KernelArgumentError."""
    others: dict[str, str] = {}
    own: dict[str, str] = {}
    for word in split(text):
        name, _, value = word.replace('"', "").partition("=")
        name = name.replace("-", "_")
        if name == "pxe_fetch" or name.startswith("pxe_fetch."):
            own[name.removeprefix("pxe_fetch").removeprefix(".")] = value
        else:
            others[name] = value
    if unknown := own.keys() - {"", *NAMES}:
        raise KernelArgumentError(
            f"unknown kernel argument {PREFIX}.{printable(min(unknown))}; the agent knows {PREFIX}=off and "
            + ", ".join(f"{PREFIX}.{name}" for name in NAMES)
        )
    if "config.sha256" in own and "config" not in own:
        raise KernelArgumentError(f"{PREFIX}.config.sha256 is given without {PREFIX}.config")
    return KernelArguments(
        off=not _is_on(own.get("", "on")),
        config=own.get("config"),
        config_sha256=_sha256(own["config.sha256"]) if "config.sha256" in own else None,
        base_url=own.get("base_url"),
        artifact_url=own.get("artifact_url"),
        deadline=_seconds(own["deadline"]) if "deadline" in own else None,
        report=own.get("report"),
        debug=_is_on(own.get("debug", "off")),
        others=others,
    )


def split(text: str) -> list[str]:
    """The words of a command line, their quotes still in place."""
    return re.findall(r'(?:[^\s"]|"[^"]*(?:"|$))+', text)


NAMES = ("config", "config.sha256", "base_url", "artifact_url", "deadline", "report", "debug")


def _is_on(value: str) -> bool:
    if value.lower() not in {"on", "yes", "true", "1", "", "off", "no", "false", "0"}:
        raise KernelArgumentError(f"{PREFIX}={printable(value)} is neither on nor off")
    return value.lower() in {"on", "yes", "true", "1", ""}


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        message = f"{PREFIX}.config.sha256={printable(value)} is not a SHA-256 digest of 64 hexadecimal digits"
        raise KernelArgumentError(message)
    return value.lower()


def _seconds(value: str) -> float:
    try:
        return quantity.duration(value)
    except RuleError as error:
        raise KernelArgumentError(f"{PREFIX}.deadline={printable(value)} {error.message}: {error.label}") from None
