"""The boot entries of a layout's grub.cfg, each with kernel, initrds and arguments as GRUB will pass them.

Source: GRUB manual, 6.1 (quoting, variables), 16.3 (`linux`, `initrd`, `load_env`). All branches of an `if` are
followed, because the condition cannot be evaluated here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from pxe_pack.image.grub.conditions import INITRD, LINUX
from pxe_pack.image.grub.network import PREFIX
from pxe_pack.image.grub.script import Block, Command, If, Node, parse, split_arguments, unquoted

_ASSIGNMENT = re.compile(r"(?P<name>\w+)=(?P<value>.*)", re.DOTALL)
_UNTITLED = "LiveOS"


@dataclass(frozen=True, kw_only=True, slots=True)
class BootEntry:
    """A boot entry. Paths are GRUB's, without a device: `/boot/vmlinuz`."""

    title: str
    kernel: str
    initrds: tuple[str, ...]
    arguments: tuple[str, ...]

    def values(self, name: str) -> list[str]:
        """The values of every kernel argument `name=…`."""
        return [argument.partition("=")[2] for argument in self.arguments if argument.startswith(f"{name}=")]

    @property
    def is_live(self) -> bool:
        """True if it boots a LiveOS with dracut."""
        return any(argument.startswith(("root=live:", "rd.live.")) for argument in self.arguments)


@dataclass(frozen=True, kw_only=True, slots=True)
class Menu:
    """The entries of a grub.cfg."""

    entries: tuple[BootEntry, ...]
    default: int  # an index of `entries`
    timeout: int | None  # seconds; None: wait for a key


@dataclass(slots=True)
class _State:
    read: Callable[[str], str]
    # an unset variable is empty
    variables: defaultdict[str, str] = field(default_factory=lambda: defaultdict(str, prefix=PREFIX))
    entries: list[BootEntry] = field(default_factory=list)
    title: str = _UNTITLED
    kernel: str = ""
    arguments: tuple[str, ...] = ()
    initrds: tuple[str, ...] = ()

    def close(self) -> None:
        """Finish the current entry."""
        if self.kernel:
            self.entries.append(
                BootEntry(title=self.title, kernel=self.kernel, initrds=self.initrds, arguments=self.arguments)
            )
        self.kernel, self.arguments, self.initrds = "", (), ()


def menu(text: str, *, read: Callable[[str], str]) -> Menu:
    """The menu of the grub.cfg `text`; `read` returns a text file of the layout. Raises GrubSyntaxError."""
    state = _State(read=read)
    _run(parse(text), state)
    state.close()
    default, timeout = state.variables["default"] or "0", state.variables["timeout"]
    return Menu(
        entries=tuple(state.entries),
        default=_default(default, state.entries),
        timeout=int(timeout) if timeout.isdigit() else None,
    )


def _default(wanted: str, entries: list[BootEntry]) -> int:
    if wanted.isdigit():
        return int(wanted) if int(wanted) < len(entries) else 0
    return next((number for number, entry in enumerate(entries) if entry.title == wanted), 0)


def _run(nodes: list[Node], state: _State) -> None:
    for node in nodes:
        if isinstance(node, Block):
            if node.words[0] != "menuentry":
                _run(node.body, state)
                continue
            state.close()
            before = state.title
            state.title = unquoted(node.words[1], state.variables) if len(node.words) > 1 else _UNTITLED
            _run(node.body, state)
            state.close()
            state.title = before
        elif isinstance(node, If):
            for branch in node.branches:
                _run(branch.condition or [], state)
                _run(branch.body, state)
        elif isinstance(node, Command):
            _command(node, state)


def _command(command: Command, state: _State) -> None:
    words = command.words[1:] if command.name == "set" else command.words
    assigned = _ASSIGNMENT.fullmatch(words[0]) if len(words) == 1 else None
    if assigned:
        state.variables[assigned["name"]] = unquoted(assigned["value"], state.variables)
    elif command.name == "load_env":
        _load_env([unquoted(word, state.variables) for word in command.words[1:]], state)
    elif command.name in LINUX and len(command.words) > 1:
        if state.kernel:
            state.close()
        state.kernel = _path(command.words[1], state)
        state.arguments = tuple(split_arguments(command.words[2:], state.variables))
    elif command.name in INITRD:
        state.initrds = tuple(_path(word, state) for word in command.words[1:])


def _load_env(words: list[str], state: _State) -> None:
    at = words.index("-f") + 1 if "-f" in words[:-1] else -1
    block = state.read(_plain(words[at]) if at > 0 else f"{PREFIX}/grubenv")
    for line in block.splitlines():
        if not line.startswith("#") and (found := _ASSIGNMENT.fullmatch(line)):
            state.variables[found["name"]] = found["value"]


def _path(word: str, state: _State) -> str:
    return _plain(unquoted(word, state.variables))


def _plain(path: str) -> str:
    """Strip the device: `/boot/x` for `(tftp)/boot/x` and `($root)/boot/x`."""
    return re.sub(r"^\([^)]*\)", "", path)
