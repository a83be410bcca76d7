"""Whether a GRUB can go on over the network, and which configuration it then reads: told from what is built into it.

Over PXE a GRUB has its TFTP server for `root`, and its own prefix there; first it runs the script that is built in,
then, unless that led elsewhere, `normal`, which reads $prefix/grub.cfg. Over TFTP nothing can be searched for, and
every test of a file is false. Sources: GRUB, kern/main.c and normal/main.c; what a Debian GRUB and one of KIWI's did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pxe_pack.image.grub.efi_image import GrubImage
from pxe_pack.image.grub.network import PREFIX
from pxe_pack.image.grub.script import Block, Command, GrubSyntaxError, If, Node, Text, parse, unquoted

LAYOUT_CONFIG = f"{PREFIX}/grub.cfg"

_NEEDED = ("net", "efinet", "tftp", "normal", "linux")
_NETWORK, _MEMDISK = "(tftp)", "(memdisk)"
_ASSIGNMENT = re.compile(r"(?P<name>\w+)=(?P<value>.*)", re.DOTALL)
_READERS = frozenset({"normal", "configfile", "source", "."})
_DEPTH_LIMIT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Netboot:
    """What comes of a GRUB that was loaded over TFTP."""

    config: str = ""  # the path that it reads: /boot/grub2/grub.cfg; empty when it reads none over the network
    obstacle: str = ""  # why it cannot go on; empty when it can


def over_network(grub: GrubImage) -> Netboot:
    """What `grub` does where a shim over TFTP started it."""
    if lacking := [name for name in _NEEDED if name not in grub.modules]:
        return Netboot(obstacle=f"its GRUB has no {', no '.join(lacking)} built in")
    if (grub.prefix or "").startswith("("):
        return Netboot(obstacle=f"its GRUB looks for its files on a disk, {grub.prefix}")
    run = _Run(memdisk=grub.memdisk_config)
    run.variables["prefix"] = _NETWORK + (grub.prefix or "")
    try:
        read = run.script(grub.config) or f"{run.variables['prefix']}/grub.cfg"
    except GrubSyntaxError as error:
        return Netboot(obstacle=f"the script in its GRUB cannot be understood: {error}")
    if not read.startswith((_NETWORK, "/")):
        return Netboot(obstacle=f"the script in its GRUB reads {read}, which is on no network")
    return Netboot(config="/" + "/".join(part for part in read.removeprefix(_NETWORK).split("/") if part))


def redirector(config: str) -> str:
    """What stands at `config`, a path that some GRUB reads, to lead it to the layout's own; empty where it is that."""
    if config == LAYOUT_CONFIG:
        return ""
    folder, _, name = LAYOUT_CONFIG.rpartition("/")
    return f"set prefix=($root){folder}\nsource $prefix/{name}\n"


class _Run:
    """A script gone through as GRUB would over TFTP."""

    def __init__(self, *, memdisk: str) -> None:
        self.memdisk = memdisk
        self.variables = {"root": _NETWORK.strip("()"), "cmdpath": _NETWORK}
        self._depth = 0

    def script(self, text: str) -> str:
        """The first file off the memdisk that `text` has read; empty when there is none. Raises GrubSyntaxError."""
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
    """What test(1) gives, over TFTP; what is not understood is false."""
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
