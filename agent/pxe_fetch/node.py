"""The facts about this node that URLs, destinations, headers and `when` refer to. Each is read when it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote

from pxe_fetch.contract import cmdline, template
from pxe_fetch.contract.model import When
from pxe_fetch.contract.problem import Problem, ProblemError, printable

_FILES = {
    "hostname": "proc/sys/kernel/hostname",
    "machine_id": "etc/machine-id",
    "serial": "sys/class/dmi/id/product_serial",
    "uuid": "sys/class/dmi/id/product_uuid",
}


@dataclass(frozen=True, kw_only=True)
class Node:
    """The node whose /proc, /sys and /etc are below `root`: "/" except in tests."""

    root: Path = Path("/")
    arguments: cmdline.KernelArguments = field(default_factory=cmdline.KernelArguments)

    def fact(self, name: str) -> str:
        """The fact `name`, or for `cmdline.NAME` the value of that kernel argument.

        Raises ProblemError if it is unknown or empty, or has characters that may steer a terminal or a reader of lines;
        the hint says where it comes from.
        """
        value = self.find(name)
        if value and value.isprintable() and "\ufffd" not in value:  # it stands for bytes that are not UTF-8
            return value
        if name.startswith(template.CMDLINE):
            argument = name.removeprefix(template.CMDLINE)
            lacking = f"this node's kernel command line has no {argument}=VALUE"
            hint = f"add {argument}=VALUE to the kernel arguments of this node, or use `when:`"
        elif name in template.FACTS:
            lacking, hint = f"this node has no {name}", f"it comes from {template.FACTS[name]}"
        else:
            message = f"${{{name}}} is not a known fact"
            raise ProblemError(Problem(reference="fact-unknown", message=message, hint=f"facts: {template.KNOWN}"))
        lacking = f"it has unprintable characters on this node: {value!a}" if value else lacking
        reference = "fact-unprintable" if value else "fact-empty"
        raise ProblemError(Problem(reference=reference, message=f"${{{name}}} is used, but {lacking}", hint=hint))

    def fill_in(self, url: str) -> str:
        """`url` with its ${facts} filled in, percent-encoded. Raises ProblemError as `fact` does."""
        return template.fill(url, lambda name: quote(self.fact(name), safe=":@"))

    def find(self, name: str) -> str:
        """As `fact`, but "" if it is unknown or empty."""
        if name.startswith(template.CMDLINE):
            return self.arguments.others.get(name.removeprefix(template.CMDLINE).replace("-", "_"), "")
        if name == "arch":
            return os.uname().machine
        if name == "mac":
            return self._mac()
        value = self._read(_FILES[name]) if name in _FILES else ""
        return value.lower() if name == "uuid" else value

    @property
    def identity(self) -> str:
        """A value unique to this node and the same at every boot: its first non-empty fact; "" if it has none.

        /etc/machine-id comes late in the order: a live system generates a new one at each boot (machine-id(5)).
        """
        return next(filter(None, map(self.find, ("mac", "uuid", "serial", "machine_id", "hostname"))), "")

    def matches(self, when: When) -> bool:
        """Whether `when` selects this node: for each fact and kernel argument, one of its globs must match the value.

        A fact that the node lacks is "", which only `*` and the like match; that is no error. An absent kernel argument
        matches nothing.
        """
        facts = all(
            any(fnmatchcase(self.find(name).lower(), glob.lower()) for glob in globs)
            for name, globs in when.facts.items()
        )
        others = self.arguments.others
        return facts and all(
            name in others and any(fnmatchcase(others[name], glob) for glob in globs)
            for name, globs in when.cmdline.items()
        )

    def summary(self) -> Mapping[str, str]:
        """The facts that identify this node in a report."""
        return {name: printable(self.find(name)) for name in ("hostname", "arch", "mac")}

    def _read(self, path: str) -> str:
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _mac(self) -> str:
        """The MAC address of the interface with the default route, else of the first hardware interface."""
        interfaces = self.root / "sys/class/net"
        for name in (self._default_route(), self._default_route6()):
            if name and (address := self._read(f"sys/class/net/{name}/address")):
                return address.lower()
        try:
            hardware = [entry.name for entry in interfaces.iterdir() if (entry / "device").exists()]
        except OSError:
            return ""
        by_index = sorted(hardware, key=lambda name: (int(self._read(f"sys/class/net/{name}/ifindex") or 0), name))
        return self._read(f"sys/class/net/{by_index[0]}/address").lower() if by_index else ""

    def _default_route(self) -> str:
        """The interface of the IPv4 default route with the lowest metric (/proc/net/route), or ""."""
        found = [
            (int(words[6]), words[0])
            for line in self._read("proc/net/route").splitlines()[1:]
            if len(words := line.split()) > 7 and words[1] == words[7] == "00000000"  # noqa: PLR2004  its columns
        ]
        return min(found)[1] if found else ""

    def _default_route6(self) -> str:
        """The interface of the IPv6 default route with the lowest metric (/proc/net/ipv6_route), or ""."""
        found = [
            (int(words[5], 16), words[9])
            for line in self._read("proc/net/ipv6_route").splitlines()
            if len(words := line.split()) > 9 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo"  # noqa: PLR2004
        ]
        return min(found)[1] if found else ""
