"""The grub.cfg served in a test boot: the layout's own, with extra kernel arguments and no menu timeout."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pxe_fetch.contract.problem import Problem
from pxe_pack.tools import InputError

# A `linux` command including its backslash-continued lines, up to its end or a comment.
LINUX = re.compile(r"^[ \t]*linux(?:efi|16)?[ \t](?:[^\\\n#]|\\(?:.|\n)|(?<=\S)#)*", re.MULTILINE)
TIMEOUT = re.compile(r"^([ \t]*set[ \t]+timeout=)[\"']?\d+[\"']?", re.MULTILINE)
PLAIN = re.compile(r"[\w@%+=:,./~-]+")


def words(arguments: Iterable[str]) -> str:
    """Kernel arguments quoted for grub.cfg. Raises InputError for one that cannot be quoted."""
    return " ".join(_quoted(argument) for argument in arguments)


def for_test_boot(text: str, *, added: str) -> str:
    """`text` with `added` appended to every entry's kernel command line, and menu timeouts set to 0.

    A menu without a timeout still waits, as it would on a real node.
    """

    def extended(match: re.Match[str]) -> str:
        command = match[0].rstrip()
        return f"{command} {added}{match[0][len(command) :]}"

    text = LINUX.sub(extended, text)
    return TIMEOUT.sub(r"\g<1>0", text)


def _quoted(argument: str) -> str:
    """`argument` as one word of GRUB's script language (GRUB manual, 6.1.2 "Quoting")."""
    if PLAIN.fullmatch(argument):
        return argument
    if "'" in argument or not argument.isprintable():
        raise InputError(
            Problem(
                reference="append-unquotable",
                message=f"the kernel argument {argument!r} cannot be written in grub.cfg",
                hint="remove single quotes and control characters",
            )
        )
    return f"'{argument}'"
