"""Words of GRUB's script language: quotes, variables, and how the value of a variable is split into words.

Sources: GRUB, script/yylex.l (what a word and a variable are) and script/execute.c and argv.c (an unquoted variable is
split at white space; one that is unset or empty makes no word).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from pxe_pack.image.grub.limits import check
from pxe_pack.image.limits import Limit

VARIABLE = r"\$(?:\{(?:\w+|[?\#*@])\}|\d+|[^\W\d]\w*|[?\#*@])"
PLAIN = re.compile(r"[\w@%+=:,./~-]+", re.ASCII)
# a value that only the node knows, such as its address from DHCP, in what `expanded` returns
UNKNOWN = "\0"

_VARIABLE = re.compile(VARIABLE, re.ASCII)
_PIECE = re.compile(
    rf"(?P<single>'[^']*')|\$?(?P<double>\"(?:[^\"\\]|\\.)*+\")|(?P<escape>\\.)|(?P<variable>{VARIABLE})|[^'\"\\$]+|\$",
    re.DOTALL | re.ASCII,
)
_DOUBLE_PIECE = re.compile(rf'\\[$"\\\n]|{VARIABLE}|[^\\$]+|.', re.DOTALL | re.ASCII)

Lookup = Callable[[str], str]


def expanded(words: Iterable[str], value: Lookup, *, arguments: Sequence[str] = ()) -> list[str]:
    """`words` as a command gets them; `value` gives a variable's value by name, empty if it is not set.

    `arguments` are what `"$@"` stands for, each a word. Raises GrubLimitError if they become too long.
    """
    found: list[str] = []
    size = 0
    for word in words:
        made: list[str] = []  # the words it becomes; the last one may grow
        for piece in _PIECE.finditer(word):
            text = piece[0]
            if piece["variable"]:
                parts = re.split(r"\s+", value(_name(text)).rstrip())
                size += sum(map(len, parts))
                if parts != [""]:
                    made[-1:] = [(made[-1] if made else "") + parts[0], *parts[1:]]
            elif text in ('"$@"', '"${@}"') and arguments:
                size += sum(map(len, arguments))
                made[-1:] = [(made[-1] if made else "") + arguments[0], *arguments[1:]]
            else:
                text = _literal(piece, value)
                size += len(text)
                made[-1:] = [(made[-1] if made else "") + text]
            check(Limit.GRUB_VALUE, size)
        found += made
    return found


def _literal(piece: re.Match[str], value: Lookup) -> str:
    """The text of a piece that is not split."""
    if piece["single"]:
        return piece["single"][1:-1]
    if piece["double"]:
        inner = piece["double"][1:-1]
        return _joined(_double(part[0], value) for part in _DOUBLE_PIECE.finditer(inner))
    if piece["escape"]:
        return piece["escape"][1:].replace("\n", "")
    return piece[0]


def _joined(parts: Iterable[str]) -> str:
    """The parts as one text. Raises GrubLimitError if it becomes too long."""
    text: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        check(Limit.GRUB_VALUE, size)
        text.append(part)
    return "".join(text)


def _double(part: str, value: Lookup) -> str:
    """A part of a text in double quotes, where a backslash escapes only `$`, `"`, a backslash and a newline."""
    if part.startswith("\\") and len(part) > 1:
        return part[1:].replace("\n", "")
    if _VARIABLE.fullmatch(part):
        return value(_name(part))
    return part


def _name(variable: str) -> str:
    return variable[1:].strip("{}")


def unquoted(word: str, variables: Mapping[str, str] | None = None) -> str:
    """The value of a word: quotes removed and `variables` expanded. Unknown variables stay as written.

    With a defaultdict for `variables`, none is unknown. Raises GrubLimitError if it becomes too long.
    """
    known: Mapping[str, str] = {} if variables is None else variables
    written: dict[str, str] = {_name(found[0]): found[0] for found in _VARIABLE.finditer(word)}

    def value(name: str) -> str:
        try:
            return known[name]
        except KeyError:
            return written[name]

    return _joined(
        value(_name(piece["variable"])) if piece["variable"] else _literal(piece, value)
        for piece in _PIECE.finditer(word)
    )


def split_arguments(words: Iterable[str], variables: Mapping[str, str]) -> list[str]:
    """`words` with `variables` expanded and split as GRUB does. Unknown variables stay as written."""
    return expanded(words, lambda name: variables.get(name, f"${name}" if name.isalnum() else f"${{{name}}}"))


def quoted(text: str) -> str:
    """`text` quoted as one literal word."""
    if PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def unknown_variable(text: str) -> bool:
    """Whether `text`, from `unquoted`, still contains a variable."""
    return bool(_VARIABLE.search(text))
