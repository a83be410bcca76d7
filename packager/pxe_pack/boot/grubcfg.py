"""The grub.cfg a trial is served: the layout's own, with a few kernel arguments more and no wait in the menu."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError

# A `linux` command with the lines that a backslash continues it to, up to its end or a comment.
LINUX = re.compile(r"^[ \t]*linux(?:efi|16)?[ \t](?:[^\\\n#]|\\(?:.|\n)|(?<=\S)#)*", re.MULTILINE)
TIMEOUT = re.compile(r"^([ \t]*set[ \t]+timeout=)[\"']?\d+[\"']?", re.MULTILINE)
PLAIN = re.compile(r"[\w@%+=:,./~-]+")


def words(arguments: Iterable[str]) -> str:
    """Kernel arguments as they stand in a grub.cfg. Raises InputError for one that no grub.cfg can carry."""
    return " ".join(_quoted(argument) for argument in arguments)


def for_test_boot(text: str, *, added: str) -> str:
    """`text` with the words `added` at the end of every entry's kernel command line, and menus that don't wait.

    A menu without a timeout keeps waiting: so would it on a real node.
    """

    def longer(match: re.Match[str]) -> str:
        command = match[0].rstrip()
        return f"{command} {added}{match[0][len(command) :]}"

    text = LINUX.sub(longer, text)
    return TIMEOUT.sub(r"\g<1>0", text)


def _quoted(argument: str) -> str:
    """`argument` as one word of GRUB's script language (its manual, 6.1.2 Quoting)."""
    if PLAIN.fullmatch(argument):
        return argument
    if "'" in argument or not argument.isprintable():
        raise InputError(
            Problem(
                reference="append-unquotable",
                message=f"the kernel argument {argument!r} cannot be written into a grub.cfg",
                hint="leave out single quotes and control characters",
            )
        )
    return f"'{argument}'"
