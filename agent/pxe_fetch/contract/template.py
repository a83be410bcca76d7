"""`${fact}` in urls, destinations and headers: which facts exist, and how they are found and filled in."""

from __future__ import annotations

import re
from collections.abc import Callable

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
