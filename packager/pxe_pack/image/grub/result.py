"""What running a GRUB configuration gives: its result, and the ways out of a script before its end."""

from __future__ import annotations

from dataclasses import dataclass

from pxe_pack.image.grub.menu import Item, Level, Loaded
from pxe_pack.image.grub.script import Node
from pxe_pack.image.grub.variables import Variables


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a configuration does."""

    menu: Level
    variables: Variables
    loads: list[Loaded]  # by commands outside of entries
    boots: bool  # it boots those, before any menu is shown
    missing: list[str]  # the commands it runs, outside of entries, that this GRUB does not have


class Leave(Exception):  # noqa: N818  no error
    """`break`, `continue` or `return`."""

    def __init__(self, command: str, count: int, *, result: bool = True) -> None:
        super().__init__(command)
        self.command = command
        self.count = count  # of loops
        self.result = result  # of the function that returns


class MenuShown(Exception):  # noqa: N818  no error
    """`configfile` or `normal` has made a menu of its own, which GRUB shows at once."""

    def __init__(self, menu: Level, variables: Variables) -> None:
        super().__init__()
        self.menu, self.variables = menu, variables


@dataclass(slots=True)
class Deferred:
    """An entry or a submenu whose commands have not run yet."""

    item: Item
    body: list[Node]
    arguments: list[str]
