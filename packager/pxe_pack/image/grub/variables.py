"""GRUB's variables: those it has when it begins to read a configuration over the network, and commands that set them.

Sources: GRUB, normal/main.c (`feature_…`, `config_directory`), net/net.c and net/bootp.c (`net_…`), normal/context.c (a
new context has the exported ones), script/execute.c (`$1`, `$@`), kern/corecmd.c, commands/loadenv.c, lib/envblk.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pxe_pack.image.grub.limits import check
from pxe_pack.image.grub.words import UNKNOWN
from pxe_pack.image.limits import Limit

PREFIX = "/boot/grub2"  # of the layout
ASSIGNMENT = re.compile(r"(?P<name>[^=]+)=(?P<value>.*)", re.DOTALL)

_FEATURES = ("chainloader_bpb", "ntldr", "platform_search_hint", "default_font_path", "all_video_module",
             "menuentry_id", "menuentry_options", "200_final", "nativedisk_cmd", "timeout_style")  # fmt: skip
# the same for every GRUB that boots by UEFI
CONSTANTS: Mapping[str, str] = MappingProxyType(
    {**{f"feature_{name}": "y" for name in _FEATURES}, "grub_platform": "efi"}
)
_OF_THE_NODE = re.compile(r"net_\w+|pxe_default_server|http_path|grub_netfs_type|lockdown|shim_lock|fw_path|cmdpath"
                          r"|YEAR|MONTH|DAY|HOUR|MINUTE|SECOND|WEEKDAY", re.ASCII)  # fmt: skip


@dataclass(slots=True)
class Variables:
    """The variables of a context, and the arguments of the function or entry that runs in it."""

    values: dict[str, str]
    exported: set[str]
    arguments: list[str] = field(default_factory=list)

    def copy(self, arguments: list[str]) -> Variables:
        """The same variables, to be changed apart from these."""
        return Variables(dict(self.values), set(self.exported), arguments)

    def context(self, arguments: list[str]) -> Variables:
        """The variables of a new context: only the exported ones; `default` is set for a submenu in its own way."""
        values = {name: self.values[name] for name in self.exported - {"default"} if name in self.values}
        return Variables(values, set(self.exported), arguments)

    def get(self, name: str) -> str:
        """The value; empty if it is not set, and marked by UNKNOWN if only the node knows it."""
        if name.isdigit():
            number = int(name[:6])
            return self.arguments[number - 1] if 0 < number <= len(self.arguments) else ""
        if name in ("@", "*"):
            return " ".join(self.arguments)
        if name == "#":
            return str(len(self.arguments))
        return self.values.get(name) or (f"{UNKNOWN}${{{name}}}{UNKNOWN}" if _OF_THE_NODE.fullmatch(name) else "")

    def assign(self, text: str) -> bool:
        """Run `name=value`; False if `text` is something else. Raises GrubLimitError."""
        found = ASSIGNMENT.fullmatch(text)
        if found:
            check(Limit.GRUB_VALUE, len(found["value"]))
            self.values[found["name"]] = found["value"]
        return bool(found)

    def run(self, command: str, words: list[str]) -> bool:
        """Run `set`, `unset` or `export`; whether it succeeds."""
        if command == "export":
            self.exported.update(words)
            self.values |= {name: self.values.get(name, "") for name in words}
        elif command == "unset":
            self.exported -= {*words[:1]}
            self.values.pop("".join(words[:1]), None)
        else:
            return not words or self.assign(words[0])
        return True

    def load(self, words: list[str], *, read: Callable[[str], str]) -> bool:
        """Run `load_env words`: set the variables in a file, by default $prefix/grubenv; those named, if any are."""
        file, names = "", []
        rest = iter(words)
        for word in rest:
            if word in ("-f", "--file"):
                file = next(rest, "")
            elif word.startswith("--file="):
                file = word.partition("=")[2]
            elif not word.startswith("-"):
                names.append(word)
        text = read(file or f"{self.get('prefix')}/grubenv")
        for name, value in environment(text).items():
            if not names or name in names:
                self.assign(f"{name}={value}")
        return bool(text)


def start(cpu: str) -> Variables:
    """The variables when GRUB begins to read the layout's grub.cfg; `cpu` is GRUB's name of the architecture."""
    values = {
        **CONSTANTS,
        "prefix": PREFIX,
        "root": "tftp",
        "config_directory": PREFIX,
        "config_file": f"{PREFIX}/grub.cfg",
    }
    values |= {"grub_cpu": cpu, "locale_dir": f"{PREFIX}/locale"}
    return Variables(values, set(values))


def environment(text: str) -> dict[str, str]:
    """The variables in an environment block: a backslash escapes the next character."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name and not line.startswith("#"):
            found[name] = re.sub(r"\\(.)", r"\1", value)
    return found
