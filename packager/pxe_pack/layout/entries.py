"""The boot entries of a layout's grub.cfg, each with kernel, initrds and arguments as GRUB will pass them.

What GRUB does is in `pxe_pack.image.grub`: the interpreter runs the configuration, and the menu says which entry boots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pxe_fetch.contract import facts
from pxe_pack.image.grub.arguments import is_live
from pxe_pack.image.grub.efi_image import GrubImage
from pxe_pack.image.grub.expression import leading_number
from pxe_pack.image.grub.interpreter import run
from pxe_pack.image.grub.menu import Item, Level, boot_order

_UNTITLED = "LiveOS"
_CPUS = {"x86_64": "x86_64", "aarch64": "arm64"}  # $grub_cpu by `uname -m`


@dataclass(frozen=True, kw_only=True, slots=True)
class BootEntry:
    """A boot entry. Paths are GRUB's, without a device: `/boot/vmlinuz`."""

    title: str
    kernel: str
    initrds: tuple[str, ...]
    arguments: tuple[str, ...]
    missing: tuple[str, ...] = ()  # the commands it runs that the layout's GRUB does not have

    def values(self, name: str) -> list[str]:
        """The values of every kernel argument `name=…`, with the name as dracut compares it: literally."""
        return [argument.partition("=")[2] for argument in self.arguments if argument.startswith(f"{name}=")]

    def agent_values(self, name: str) -> list[str]:
        """The values of every kernel argument that the agent takes for `name` (pxe_fetch.contract.facts.parse)."""
        words = [word.replace('"', "").partition("=") for word in facts.split(self.command_line)]
        return [value for key, _, value in words if facts.argument(key) == facts.argument(name)]

    @property
    def is_live(self) -> bool:
        """True if it boots a LiveOS with dracut."""
        return is_live(self.arguments)

    @property
    def command_line(self) -> str:
        """The kernel command line as GRUB makes it (loader/i386/linux.c, lib/cmdline.c), the kernel's path first."""
        return " ".join([f"BOOT_IMAGE={self.kernel}", *map(escaped, self.arguments)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Menu:
    """The entries of a grub.cfg that boot Linux, those of submenus among them."""

    entries: tuple[BootEntry, ...]
    default: int | None  # an index of `entries`; None if GRUB boots by default what is not Linux
    fallbacks: tuple[int, ...] = ()  # what GRUB boots if the default fails, in this order
    timeout: int | None  # seconds; None: wait for a key
    default_title: str = ""  # of the default entry, also if it is not Linux
    missing: tuple[str, ...] = ()  # commands outside of entries that the layout's GRUB does not have


def menu(text: str, *, read: Callable[[str], str], grub: GrubImage | None = None) -> Menu:
    """The menu that the grub.cfg `text` makes on a node. Raises GrubSyntaxError.

    `read` returns a text file of the layout, empty if there is none; `grub` is the GRUB that will read it, if known.
    """
    cpu = _CPUS.get(grub.machine if grub else "", "x86_64")
    result = run(text, read=read, cpu=cpu, commands=grub.commands if grub else None)
    entries: list[BootEntry] = []
    numbers: dict[int, int] = {}  # by id() of the item, the index of its first entry
    for item in _flat(result.menu):
        numbers[id(item)] = len(entries)
        entries += _entries(item)
    outside = Item(title=_UNTITLED, identity=_UNTITLED, loads=result.loads)
    order = [outside] if result.boots else boot_order(result.menu, rule=grub.menu_rule if grub else None) or [outside]
    numbers[id(outside)] = len(entries)
    entries += _entries(outside)
    default, *rest = order
    return Menu(
        entries=tuple(entries),
        default=numbers[id(default)] if default.loads else None,
        fallbacks=tuple(numbers[id(item)] for item in rest if item.loads),
        timeout=_timeout(result.variables.get("timeout")),
        default_title=default.title,
        missing=tuple(result.missing),
    )


def escaped(argument: str) -> str:
    """A kernel argument as GRUB puts it into the command line."""
    text = re.sub(r"([\\\\'\"])", r"\\\1", argument)
    return f'"{text}"' if " " in argument else text


def _flat(level: Level) -> Iterator[Item]:
    for item in level.items:
        if item.submenu:
            yield from _flat(item.submenu)
        else:
            yield item


def _entries(item: Item) -> list[BootEntry]:
    return [
        BootEntry(
            title=item.title,
            kernel=loaded.kernel,
            initrds=loaded.initrds,
            arguments=loaded.arguments,
            missing=tuple(item.missing),
        )
        for loaded in item.loads
    ]


def _timeout(value: str) -> int | None:
    """The seconds that GRUB waits; None for no or an invalid number (grub_menu_get_timeout), and for a negative one."""
    number = leading_number(value)
    return number[0] if number and number[0] < 1 << 31 else None
