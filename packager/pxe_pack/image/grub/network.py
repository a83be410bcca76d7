"""Rewrite a GRUB configuration for booting over the network.

GRUB cannot list directories over TFTP, so `[ -f FILE ]` is false for every file and `search` finds nothing; there is no
medium to find either. Therefore `search` and `set root=` are removed, file tests are answered here from the image's
files, `root=live:` gets the URL, paths of kernels and initrds become those in the layout (below /boot), and included
files (`source`, the entries behind `blscfg`) are inlined.
Source: GRUB manual 5.x "network", 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from pxe_pack.image.grub import bls
from pxe_pack.image.grub.arguments import is_live, network_arguments
from pxe_pack.image.grub.commands import INITRD, LINUX, plain_path
from pxe_pack.image.grub.conditions import conditional, inlined, never_empty
from pxe_pack.image.grub.files import Files, UnsuitableGrubConfigError
from pxe_pack.image.grub.limits import Usage, check
from pxe_pack.image.grub.script import (
    Block,
    Command,
    If,
    Loop,
    Node,
    Text,
    parse,
    walk,
)
from pxe_pack.image.grub.variables import PREFIX, environment
from pxe_pack.image.grub.words import quoted, split_arguments, unknown_variable, unquoted
from pxe_pack.image.limits import Limit

__all__ = ["Files", "NetworkConfig", "UnsuitableGrubConfigError", "for_network", "with_commands"]

_SOURCES = frozenset({"source", ".", "configfile"})
_ASSIGNMENT = re.compile(r"(?P<name>\w+)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """A `grub.cfg` for the network, and the files it loads."""

    text: str
    files: Mapping[str, str]  # path in the layout -> path in the image, both without a leading slash
    live: bool  # some entry boots a LiveOS (`root=live:`)
    arguments: tuple[tuple[str, ...], ...]  # kernel arguments per live entry (per entry if none is), expanded
    kernels: tuple[str, ...]  # paths in the image, each once
    initrds: tuple[str, ...]


@dataclass(slots=True)
class _State:
    boot_url: str
    at: Files
    variables: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    arguments: list[tuple[str, ...]] = field(default_factory=list)
    others: list[tuple[str, ...]] = field(default_factory=list)  # arguments of entries that do not boot a LiveOS
    kernels: list[str] = field(default_factory=list)
    initrds: list[str] = field(default_factory=list)
    sourced: list[str] = field(default_factory=list)  # stack of included files, innermost last
    deferred: list[Block] = field(default_factory=list)  # entries and submenus, whose commands run later
    opens_menu: bool = False  # `configfile` has been replaced by what it reads
    usage: Usage = field(default_factory=Usage)


def for_network(text: str, *, boot_url: str, files: Files) -> NetworkConfig:
    """`text` rewritten to boot the LiveOS from `boot_url`; parts that already work stay unchanged.

    An empty `boot_url` leaves `root=live:` unchanged. Raises GrubSyntaxError, and UnsuitableGrubConfigError if no entry
    boots Linux or an entry needs a file that the image does not have.
    """
    state = _State(boot_url=boot_url, at=files, variables={"prefix": PREFIX, "root": ""})
    state.usage.read(text)
    nodes = _rewritten(parse(text), state)
    _rewrite_deferred(state)
    if not state.arguments and not state.others:
        raise UnsuitableGrubConfigError("no entry boots a LiveOS (`linux … root=live:…`), or Linux at all")
    return NetworkConfig(
        text="".join(map(str, nodes)),
        files=dict(sorted(state.files.items())),
        live=bool(state.arguments),
        arguments=tuple(state.arguments or state.others),
        kernels=tuple(dict.fromkeys(state.kernels)),
        initrds=tuple(dict.fromkeys(state.initrds)),
    )


def _rewrite_deferred(state: _State) -> None:
    """Rewrite the commands of entries, which GRUB runs when it boots one: with the variables as they are in the end."""
    for block in state.deferred:
        variables = dict(state.variables)
        state.deferred, state.opens_menu = [], False
        block.body = never_empty(_rewritten(block.body, state))
        if state.opens_menu and any(isinstance(node, Block) for node in block.body):
            # a `configfile` that makes a menu of its own; a submenu has a new context, too
            block.head = block.head.replace(block.words[0], "submenu", 1)
            block.words = ["submenu", *block.words[1:]]
        _rewrite_deferred(state)
        state.variables = variables


def with_commands(text: str, commands: Collection[str]) -> str:
    """The grub.cfg `text` for a GRUB that has `commands`: `linux` for `linuxefi` where it has only that.

    Both load a kernel in the same way (Fedora's GRUB has them as one command). Raises GrubSyntaxError.
    """
    nodes = parse(text)
    for command in walk(nodes):
        plain = "linux" if command.name in LINUX else "initrd" if command.name in INITRD else ""
        if plain and command.name not in commands and plain in commands:
            command.words[0] = plain
    return "".join(map(str, nodes))


def _rewritten(nodes: list[Node], state: _State) -> list[Node]:
    out: list[Node] = []
    swallowed = ""  # separators to drop together with the command they ended
    for node in nodes:
        if isinstance(node, Text) and node.text in swallowed:
            swallowed = ""
            continue
        swallowed = ""
        replaced = _one(node, state)
        if not replaced:
            # remove the command's whole line, including its indentation
            if out and isinstance(out[-1], Text) and not out[-1].text.strip(" \t") and _begins_line(out[:-1]):
                out.pop()
            swallowed = "\n;" if _begins_line(out) else ";"
        out += replaced
    return out


def _begins_line(before: list[Node]) -> bool:
    return not before or (isinstance(before[-1], Text) and before[-1].text == "\n")


def _one(node: Node, state: _State) -> list[Node]:
    """The replacement for `node`; empty if it is removed."""
    if isinstance(node, Block) and node.name in ("menuentry", "submenu"):
        state.usage.entry(line=node.line)
        state.deferred.append(node)
        return [node]
    if isinstance(node, (Block, Loop)):
        node.body = never_empty(_rewritten(node.body, state))
        return [node]
    if isinstance(node, If):
        return conditional(
            node,
            rewritten=lambda body: _rewritten(body, state),
            unreached=lambda body: _unreached(body, state),
            exists=state.at.exists,
            variables=state.variables,
        )
    return [node] if isinstance(node, Text) else _command(node, state)


def _unreached(nodes: list[Node], state: _State) -> list[Node] | None:
    """Rewrite what no node comes to, without an effect on what follows; None if it needs files that are not there."""
    apart = replace(state, variables=dict(state.variables), files={}, arguments=[], others=[], kernels=[], initrds=[])
    apart.deferred = []
    try:
        made = _rewritten(nodes, apart)
        _rewrite_deferred(apart)
    except UnsuitableGrubConfigError:
        return None
    return made


def _command(node: Command, state: _State) -> list[Node]:
    _name_plainly(node, state)
    name = node.name
    if name == "blscfg":
        words = [unquoted(word, state.variables) for word in node.words[1:]]
        entries = bls.menu_entries(words, files=state.at, variables=state.variables, usage=state.usage)
        return _rewritten(parse(entries), state)
    _remember(node, state)
    if _needs_medium(node):
        return []
    if name in _SOURCES and len(node.words) == 2 and (text := _sourced(node, state)):  # noqa: PLR2004
        return text
    if name in LINUX and len(node.words) > 1:
        _fix_linux(node, state)
    elif name in INITRD:
        node.replace_words([node.words[0], *(_loaded(word, state, state.initrds) for word in node.words[1:])])
    elif name == "load_env":
        _fix_load_env(node, state)
    return [node]


def _name_plainly(command: Command, state: _State) -> None:
    """Replace `$linux` and `$initrd`, which KIWI sets to a variant of the command, by the command every GRUB has."""
    if command.words[0].startswith("$"):
        name = unquoted(command.words[0], state.variables)
        plain = "linux" if name in LINUX else "initrd" if name in INITRD else ""
        if plain:
            command.replace_words([plain, *command.words[1:]])


def _fix_load_env(command: Command, state: _State) -> None:
    """Add a `load_env -f` file to the layout, unless it is GRUB's own grubenv, which the layout has anyway."""
    words = list(command.words)
    at = words.index("-f") + 1 if "-f" in words[:-1] else 0
    path = plain_path(unquoted(words[at], state.variables)) if at else ""
    if path.startswith("/") and not unknown_variable(path) and state.at.exists(path):
        target = path if path.startswith(f"{PREFIX}/") else _target(path, state)
        if target != unquoted(words[at], state.variables):
            words[at] = quoted(target)
            command.replace_words(words)


def _needs_medium(command: Command) -> bool:
    """Whether a command searches for a medium, or points GRUB away from its folder in the layout."""
    assigned = _assignment(command)
    if assigned and assigned[0] in ("root", "prefix"):
        return True
    return command.name.split(".")[0] == "search" or [unquoted(word) for word in command.words] == ["insmod", "blscfg"]


def _sourced(command: Command, state: _State) -> list[Node]:
    """The rewritten content of an included file; empty if the image does not have it."""
    path = plain_path(unquoted(command.words[1], state.variables))
    text = "" if unknown_variable(path) else state.at.read(path)
    if not text.strip():
        return []
    if path in state.sourced:
        raise UnsuitableGrubConfigError(f"it includes {path} recursively")
    state.usage.include(line=command.line)
    state.usage.read(text)
    check(Limit.GRUB_DEPTH, len(state.sourced))
    state.opens_menu |= command.name == "configfile"
    state.sourced.append(path)
    nodes = _rewritten(parse(text), state)
    state.sourced.pop()
    return inlined(nodes)


def _assignment(command: Command) -> tuple[str, str] | None:
    """(name, value as written) of `set name=value` or `name=value`; None for other commands."""
    words = command.words[1:] if command.name == "set" else command.words
    found = _ASSIGNMENT.fullmatch(words[0]) if len(words) == 1 else None
    return (found["name"], found["value"]) if found else None


def _remember(command: Command, state: _State) -> None:
    """Track a command's effect on variables, also inside an `if`: a possible value is the best guess."""
    if assigned := _assignment(command):
        state.variables[assigned[0]] = unquoted(assigned[1], state.variables)
    elif command.name == "load_env":
        words = [unquoted(word, state.variables) for word in command.words[1:]]
        at = words.index("-f") + 1 if "-f" in words[:-1] else -1
        state.variables |= environment(state.at.read(plain_path(words[at]) if at > 0 else f"{PREFIX}/grubenv"))


def _fix_linux(command: Command, state: _State) -> None:
    kernel = _loaded(command.words[1], state, state.kernels)
    words = command.words[2:]
    given = split_arguments(words, state.variables)
    if is_live(given):
        words = network_arguments(words, variables=state.variables, boot_url=state.boot_url)
        state.arguments.append(tuple(split_arguments(words, state.variables)))
    else:
        state.others.append(tuple(given))
    command.replace_words([command.words[0], kernel, *words])


def _loaded(word: str, state: _State, kind: list[str]) -> str:
    """The word for a kernel or an initrd in the layout; the file is added to those the layout needs."""
    written = unquoted(word, state.variables)
    path = plain_path(written)
    if unknown_variable(path):
        raise UnsuitableGrubConfigError(f"it loads {word}, but nothing in the image sets that variable")
    if not state.at.exists(path):
        raise UnsuitableGrubConfigError(f"it loads {path}, which the image does not have")
    kind.append(path.lstrip("/"))
    target = _target(path, state)
    return word if target == written else quoted(target)


def _target(path: str, state: _State) -> str:
    """The path in the layout of a file of the image, which is added to the files the layout needs."""
    target = path if path.startswith("/boot/") else f"/boot/{path.rsplit('/', 1)[-1]}"
    if state.files.setdefault(target.lstrip("/"), path.lstrip("/")) != path.lstrip("/"):
        raise UnsuitableGrubConfigError(f"two of its files would both become {target}: {path} and another")
    return target
