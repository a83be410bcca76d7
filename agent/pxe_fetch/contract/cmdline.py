"""The kernel command line, and the agent's arguments on it.

Words as the kernel splits them (Documentation/admin-guide/kernel-parameters.rst, lib/cmdline.c `next_arg`): blanks
separate words, double quotes protect blanks and are not part of the value, the first `=` ends the name, `-` and `_` are
the same in names, and the last of several with one name wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pxe_fetch.contract import quantity

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
    values = dict(_name_and_value(word) for word in split(text))
    own = {name: values.pop(name) for name in list(values) if name == _OWN or name.startswith(_OWN + ".")}
    deadline = own.pop(f"{_OWN}.deadline", None)
    switch = own.pop(_OWN, "on")
    sha256 = own.pop(f"{_OWN}.config.sha256", None)
    arguments = KernelArguments(
        off=_is_off(switch),
        config=own.pop(f"{_OWN}.config", None),
        config_sha256=None if sha256 is None else _sha256(sha256),
        base_url=own.pop(f"{_OWN}.base_url", None),
        artifact_url=own.pop(f"{_OWN}.artifact_url", None),
        deadline=None if deadline is None else _seconds(deadline),
        report=own.pop(f"{_OWN}.report", None),
        debug=f"{_OWN}.debug" in own and not _is_off(own.pop(f"{_OWN}.debug") or "on"),
        others=values,
    )
    own.pop(f"{_OWN}.debug", None)
    if own:
        raise KernelArgumentError(
            f"unknown kernel argument {PREFIX}{min(own).removeprefix(_OWN)}; the agent knows {PREFIX}=off and "
            + ", ".join(f"{PREFIX}.{name}" for name in _NAMES)
        )
    if arguments.config_sha256 and not arguments.config:
        raise KernelArgumentError(f"{PREFIX}.config.sha256 is given without {PREFIX}.config")
    return arguments


def split(text: str) -> list[str]:
    """The words of a command line, their quotes still in place."""
    words: list[str] = []
    word = ""
    quoted = False
    for character in text:
        if character.isspace() and not quoted:
            if word:
                words.append(word)
            word = ""
            continue
        quoted ^= character == '"'
        word += character
    return [*words, word] if word else words


_OWN = "pxe_fetch"
_NAMES = ("config", "config.sha256", "base_url", "artifact_url", "deadline", "report", "debug")
_SHA256_DIGITS = 64


def _name_and_value(word: str) -> tuple[str, str]:
    name, _, value = word.replace('"', "").partition("=")
    return name.replace("-", "_"), value


def _is_off(value: str) -> bool:
    if value.lower() in {"off", "no", "false", "0"}:
        return True
    if value.lower() in {"on", "yes", "true", "1", ""}:
        return False
    raise KernelArgumentError(f"{PREFIX}={value} is neither on nor off")


def _sha256(value: str) -> str:
    if len(value) != _SHA256_DIGITS or not all(c in "0123456789abcdef" for c in value.lower()):
        raise KernelArgumentError(f"{PREFIX}.config.sha256={value} is not a SHA-256 digest of 64 hexadecimal digits")
    return value.lower()


def _seconds(value: str) -> float:
    try:
        return quantity.duration(value)
    except ValueError as error:
        raise KernelArgumentError(f"{PREFIX}.deadline={value}: {error}") from None
