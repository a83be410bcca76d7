"""The menu of a GRUB configuration, and which of its entries GRUB boots when no key is pressed.

Source: GRUB, normal/menu.c. `default` and `fallback` name an entry by number, id or title; `a>b` is entry b of submenu
a, and `>>` stands for a `>` in a name. GRUBs differ in how they tell numbers from names, see `Rule`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pxe_pack.image.grub.expression import leading_number
from pxe_pack.image.limits import Limit

# "number first" is GRUB as released: `default=6.12` is entry 6, whatever titles there are. "id first" is the GRUB of
# Fedora, RHEL and Azure Linux 4 (their get_entry_number_helper): an id, then a title, then a number without a rest.
Rule = Literal["number first", "id first"]

_FIRST_PART = re.compile(r"(?:[^>]|>>)*")


@dataclass(kw_only=True, slots=True)
class Loaded:
    """What an entry loads. Paths are GRUB's, without a device: `/boot/vmlinuz`."""

    kernel: str
    arguments: tuple[str, ...]
    initrds: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class Item:
    """An entry of a menu, or a submenu."""

    title: str
    identity: str
    submenu: Level | None = None  # None: an entry
    loads: list[Loaded] = field(default_factory=list)  # several if only a node can tell which; empty if not Linux
    missing: list[str] = field(default_factory=list)  # the commands it runs that this GRUB does not have


@dataclass(slots=True)
class Level:
    """The items of a menu or a submenu, and the variables that choose among them."""

    items: list[Item] = field(default_factory=list)
    default: str | None = None  # None: not set
    fallback: str = ""


def boot_order(level: Level, *, rule: Rule | None) -> list[Item]:
    """The entry that GRUB boots, then those that it boots if that fails. None is a submenu; empty if there is no entry.

    `rule` is None if the GRUB is not known: then an id or a title comes before a number, which may go on with `>`.
    """
    return _Order(rule).booted(level, level.default)


@dataclass(slots=True)
class _Order:
    rule: Rule | None
    attempts: int = 0

    def booted(self, level: Level, wanted: str | None) -> list[Item]:
        """The attempts in one menu. A submenu in which all fail has failed, so its menu goes on."""
        if not level.items:
            return []
        at = None if wanted is None else _position(level.items, wanted, self.rule)
        order = self._one(level, at if at is not None and at < len(level.items) else 0, wanted)
        for part in level.fallback.split():
            at = _position(level.items, part, self.rule)
            known = self.rule != "number first" or leading_number(part)
            if at is None or at >= len(level.items) or not known:
                break
            order += self._one(level, at, wanted)
        return order

    def _one(self, level: Level, at: int, wanted: str | None) -> list[Item]:
        """The attempts for one item. In a submenu `default` is the rest of the path, unless its script sets another."""
        self.attempts += 1
        if self.attempts > Limit.GRUB_ENTRIES.most:
            return []
        item = level.items[at]
        if item.submenu is None:
            return [item]
        rest = _rest(wanted or "") or None
        return self.booted(item.submenu, rest if item.submenu.default is None else item.submenu.default)


def _position(items: Sequence[Item], wanted: str, rule: Rule | None) -> int | None:
    """The number of the item that `wanted` begins with, which may be too high; None if it names none."""
    number = leading_number(wanted)
    if rule == "number first" and number:
        return number[0]
    name = _FIRST_PART.match(wanted)
    first = name[0].replace(">>", ">") if name else ""
    if rule == "number first":
        return next((at for at, item in enumerate(items) if first in (item.title, item.identity)), None)
    by_id = next((at for at, item in enumerate(items) if first and item.identity == first), None)
    if rule == "id first" and by_id is not None and re.search(r"\s", wanted):
        # it compares ids with the first word, and gives up on a rest
        by_id = None
        if not re.search(r"\s", first):
            return None
    by_title = next((at for at, item in enumerate(items) if first and item.title == first), None)
    if by_id is not None or by_title is not None:
        return by_id if by_id is not None else by_title
    if number is None or (rule == "id first" and number[1]):
        return None
    return number[0]


def _rest(wanted: str) -> str:
    """What follows the first part of a path."""
    first = _FIRST_PART.match(wanted)
    return wanted[first.end() + 1 :] if first else ""
