"""Whether a GRUB can boot over the network, and which configuration it reads, derived from what is built into it.

Over PXE, GRUB's `root` is the TFTP server, and its prefix is a path there. It first runs its embedded script and then,
unless that loads something else, `normal`, which reads $prefix/grub.cfg. Over TFTP, `search` finds nothing and every
file test is false. Sources: GRUB, kern/main.c and normal/main.c; the observed behaviour of Debian's and KIWI's GRUB.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pxe_pack.image.grub.efi_image import GrubImage
from pxe_pack.image.grub.network import PREFIX
from pxe_pack.image.grub.script import Block, Command, GrubSyntaxError, If, Node, Text, parse, unquoted

LAYOUT_CONFIG = f"{PREFIX}/grub.cfg"
# Loaded by UEFI HTTP boot, Debian 13's GRUB 2.12 takes the folder that it was loaded from for its prefix (observed).
HTTP_CONFIG = "/grub.cfg"

_NEEDED = ("net", "efinet", "tftp", "normal", "linux")
_NETWORK, _MEMDISK = "(tftp)", "(memdisk)"
_ASSIGNMENT = re.compile(r"(?P<name>\w+)=(?P<value>.*)", re.DOTALL)
_READERS = frozenset({"normal", "configfile", "source", "."})
_DEPTH_LIMIT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Netboot:
    """How a GRUB behaves when loaded over TFTP."""

    config: str = ""  # the path it reads, such as /boot/grub2/grub.cfg; empty if it reads none over the network
    obstacle: str = ""  # why it cannot boot over the network; empty if it can


def over_network(grub: GrubImage) -> Netboot:
    """How `grub` behaves when loaded over TFTP, possibly by a shim."""
    if missing := [name for name in _NEEDED if name not in grub.modules]:
        return Netboot(obstacle=f"its GRUB lacks the built-in module{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if (grub.prefix or "").startswith("("):
        return Netboot(obstacle=f"its GRUB looks for its files on a disk, {grub.prefix}")
    run = _Run(memdisk=grub.memdisk_config)
    run.variables["prefix"] = _NETWORK + (grub.prefix or "")
    try:
        read = run.script(grub.config) or f"{run.variables['prefix']}/grub.cfg"
    except GrubSyntaxError as error:
        return Netboot(obstacle=f"cannot parse the script embedded in its GRUB: {error}")
    if not read.startswith((_NETWORK, "/")):
        return Netboot(obstacle=f"the script embedded in its GRUB reads {read}, which is not on the network")
    return Netboot(config="/" + "/".join(part for part in read.removeprefix(_NETWORK).split("/") if part))


def redirector(config: str) -> str:
    """The script to place at `config` so that GRUB reads the layout's grub.cfg; empty if `config` is that file."""
    if config == LAYOUT_CONFIG:
        return ""
    folder, _, name = LAYOUT_CONFIG.rpartition("/")
    return f"set prefix=($root){folder}\nsource $prefix/{name}\n"


class _Run:
    """Interprets a script as GRUB would over TFTP."""

    def __init__(self, *, memdisk: str) -> None:
        self.memdisk = memdisk
        self.variables = {"root": _NETWORK.strip("()"), "cmdpath": _NETWORK}
        self._depth = 0

    def script(self, text: str) -> str:
        """The first file outside the memdisk that `text` reads; empty if there is none. Raises GrubSyntaxError."""
        self._depth += 1
        found = "" if self._depth > _DEPTH_LIMIT else self._go(parse(text))
        self._depth -= 1
        return found

    def _go(self, nodes: Sequence[Node]) -> str:
        for node in nodes:
            found = ""
            if isinstance(node, If):
                bodies = (one.body for one in node.branches if one.condition is None or self._holds(one.condition))
                found = self._go(next(bodies, []))
            elif isinstance(node, Command):
                found = self._command(node)
            if found:
                return found
        return ""

    def _command(self, command: Command) -> str:
        words = [unquoted(word, self.variables) for word in command.words]
        assigned = _ASSIGNMENT.fullmatch(words[-1]) if len(words) == 1 or words[0] == "set" else None
        if assigned:
            self.variables[assigned["name"]] = assigned["value"]
        if command.name not in _READERS:
            return ""
        path = words[1] if len(words) > 1 else f"{self.variables['prefix']}/grub.cfg"
        return self.script(self.memdisk) if path.startswith(_MEMDISK) else path

    def _holds(self, condition: Sequence[Node]) -> bool:
        """Whether the last command of a condition succeeds."""
        commands = [node for node in condition if not isinstance(node, (Text, Block))]
        last = commands[-1] if commands else None
        if not isinstance(last, Command):
            return False
        words = [unquoted(word, self.variables) for word in last.words]
        negated = words[:1] == ["!"]
        words = words[1:] if negated else words
        if words[:1] in (["["], ["test"]):
            return _test([word for word in words[1:] if word != "]"]) != negated
        return (words[:1] == ["true"]) != negated  # a search finds nothing


def _test(words: list[str]) -> bool:
    """The result of GRUB's `test` over TFTP; false for anything not understood."""
    for word, joined in (("-o", any), ("-a", all)):
        if word in words:
            at = words.index(word)
            return joined(_test(part) for part in (words[:at], words[at + 1 :]))
    if words[:1] == ["!"]:
        return not _test(words[1:])
    known = False
    match words:
        case ["-z", text]:
            known = not text
        case ["-n", text] | [text]:
            known = bool(text)
        case [one, "=" | "==", other]:
            known = one == other
        case [one, "!=", other]:
            known = one != other
    return known
