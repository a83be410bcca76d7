"""Names and words of GRUB's commands: those that load Linux, the options of `menuentry`, paths.

Sources: GRUB, lib/arg.c and commands/menuentry.c (options may stand anywhere); kern/file.c (a path begins with a device
in parentheses, or is on $root).
"""

from __future__ import annotations

import re

from pxe_pack.image.grub.words import UNKNOWN

LINUX = frozenset({"linux", "linuxefi", "linux16"})
INITRD = frozenset({"initrd", "initrdefi", "initrd16"})

_WITH_VALUE = frozenset({"--class", "--users", "--hotkey", "--source", "--id", "-c", "-u", "-k", "-s"})


def plain_path(path: str) -> str:
    """A path without its device: `/boot/x` for `(tftp)/boot/x` and `($root)/boot/x`."""
    return unmarked(re.sub(r"^\([^)]*\)", "", path))


def unmarked(text: str) -> str:
    """`text` with `${name}` for what only the node knows."""
    return text.replace(UNKNOWN, "")


def menuentry_options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments and the options of `menuentry`."""
    arguments: list[str] = []
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word == "--":
            arguments += rest
        elif not word.startswith("-") or word == "-":
            arguments.append(word)
        elif name.startswith("--") and equals:
            options[name] = value
        elif word in _WITH_VALUE:
            options[word] = next(rest, "")
    return arguments, options
