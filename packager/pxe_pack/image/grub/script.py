"""Parse GRUB's script language into an editable tree that converts back to exactly the same text.

Source: GRUB manual, 6.1 "Writing full configuration files directly" (words, quoting, reserved words). Only the
structure is parsed: words with their quoting, separators, comments, `{ }` blocks and `if`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
    (?P<space> (?:[ \t\r]|\\\n)+ )
  | (?P<comment> \#[^\n]* )
  | (?P<end> [\n;] )
  | (?P<word> (?: \$\{[^}\n]*\} | [^\s;'"\\{}] | \\. | '[^']*' | "(?:[^"\\]|\\.)*" )+ | [{}] )
    """,
    re.VERBOSE | re.DOTALL,
)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<plain>\w+|[?#*@]))")
_ENDS = frozenset({"}", "then", "elif", "else", "fi"})
PLAIN = re.compile(r"[\w@%+=:,./~-]+", re.ASCII)


class GrubSyntaxError(ValueError):
    """A script that GRUB would reject too; the text says why, and `line` (from 1) where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Command:
    """A simple command: `words` as written, and the text between them: `gaps[i]` before word i, the last after all."""

    words: list[str]
    gaps: list[str]

    def __str__(self) -> str:
        return "".join(gap + word for gap, word in zip(self.gaps, [*self.words, ""], strict=True))

    @property
    def name(self) -> str:
        return unquoted(self.words[0]) if self.words else ""

    def replace_words(self, words: list[str]) -> None:
        """Replace all words, keeping the space before the first and after the last one."""
        self.gaps = [self.gaps[0], *([" "] * (len(words) - 1)), self.gaps[-1]]
        self.words = words


@dataclass(slots=True)
class Block:
    """`menuentry … { body }`, `submenu` or `function`: the text including the brace, the body, the closing brace."""

    head: str
    words: list[str]
    body: list[Node]
    tail: str

    def __str__(self) -> str:
        return self.head + "".join(map(str, self.body)) + self.tail


@dataclass(slots=True)
class Branch:
    """`if condition; then body` (also `elif`), or `else body`, whose condition is None. Keeps all text in between."""

    keyword: str
    condition: list[Node] | None
    then: str
    body: list[Node]

    def __str__(self) -> str:
        condition = "".join(map(str, self.condition or []))
        return self.keyword + condition + self.then + "".join(map(str, self.body))


@dataclass(slots=True)
class If:
    """`if … fi` with its branches; `tail` is the `fi` and the space before it."""

    branches: list[Branch]
    tail: str

    def __str__(self) -> str:
        return "".join(map(str, self.branches)) + self.tail


@dataclass(slots=True)
class Text:
    """Text without meaning: separators, comments, space."""

    text: str

    def __str__(self) -> str:
        return self.text


Node = Command | Block | If | Text


@dataclass(slots=True)
class _Tokens:
    items: list[tuple[str, str, int]] = field(default_factory=list)  # kind, text, line
    at: int = 0

    def peek(self) -> tuple[str, str]:
        return self.items[self.at][:2] if self.at < len(self.items) else ("", "")

    def take(self) -> str:
        self.at += 1
        return self.items[self.at - 1][1]

    def space(self) -> str:
        return self.take() if self.peek()[0] == "space" else ""

    def fail(self, message: str) -> GrubSyntaxError:
        line = self.items[min(self.at, len(self.items) - 1)][2] if self.items else 1
        return GrubSyntaxError(message, line)


def parse(text: str) -> list[Node]:
    """The script as a tree; `"".join(map(str, nodes))` is the original text. Raises GrubSyntaxError."""
    tokens = _Tokens()
    position, line = 0, 1
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found or not found.lastgroup:
            raise GrubSyntaxError(f"unclosed quote, or a lone backslash: {text[position:][:20]!r}", line)
        tokens.items.append((found.lastgroup, found[0], line))
        line += found[0].count("\n")
        position = found.end()
    try:
        nodes = _nodes(tokens)
    except RecursionError:
        raise tokens.fail("blocks are nested too deeply") from None
    if tokens.at < len(tokens.items):
        raise tokens.fail(f"unexpected {tokens.peek()[1]!r}")
    return nodes


def _nodes(tokens: _Tokens) -> list[Node]:
    nodes: list[Node] = []
    while tokens.at < len(tokens.items):
        kind, text = tokens.peek()
        if kind != "word":
            nodes.append(Text(tokens.take()))
        elif text in _ENDS:
            return nodes
        elif text == "if":
            nodes.append(_if(tokens))
        else:
            nodes.append(_command(tokens))
    return nodes


def _command(tokens: _Tokens) -> Node:
    words, gaps = [tokens.take()], [""]
    while True:
        gap = tokens.space()
        kind, text = tokens.peek()
        if kind == "word" and text == "{":
            head = "".join(a + b for a, b in zip(gaps, words, strict=True)) + gap + tokens.take()
            body = _nodes(tokens)
            if tokens.peek()[1] != "}":
                raise tokens.fail("unclosed `{`")
            return Block(head=head, words=words, body=body, tail=tokens.take())
        if kind != "word" or text == "}":
            gaps.append(gap)
            return Command(words=words, gaps=gaps)
        gaps.append(gap)
        words.append(tokens.take())


def _if(tokens: _Tokens) -> If:
    branches: list[Branch] = []
    keyword = tokens.take()
    while True:
        if keyword == "else":
            branches.append(Branch(keyword, None, "", _nodes(tokens)))
        else:
            condition = _nodes(tokens)
            if tokens.peek()[1] != "then":
                raise tokens.fail("`if` without `then`")
            branches.append(Branch(keyword, condition, tokens.take(), _nodes(tokens)))
        kind, text = tokens.peek()
        if kind != "word" or text not in ("elif", "else", "fi") or (keyword == "else" and text != "fi"):
            raise tokens.fail("`if` without `fi`")
        keyword = tokens.take()
        if keyword == "fi":
            return If(branches=branches, tail=keyword)


def walk(nodes: list[Node]) -> Iterator[Command]:
    """Every simple command in text order, including those in conditions and blocks."""
    for node in nodes:
        if isinstance(node, Command):
            yield node
        elif isinstance(node, Block):
            yield from walk(node.body)
        elif isinstance(node, If):
            for branch in node.branches:
                yield from walk(branch.condition or [])
                yield from walk(branch.body)


def split_arguments(words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """`words` with `variables` expanded. GRUB splits the value of an unquoted variable into words."""
    arguments: list[str] = []
    for word in words:
        text = unquoted(word, variables)
        arguments += text.split() if word.startswith("$") else [text]
    return arguments


def unquoted(word: str, variables: Mapping[str, str] | None = None) -> str:
    """The value of a word: quotes removed and `variables` expanded. Unknown variables stay as written.

    With a defaultdict for `variables`, none is unknown.
    """

    def value(match: re.Match[str]) -> str:
        if variables is None:
            return match[0]
        try:
            return variables[match["braced"] or match["plain"] or ""]
        except KeyError:
            return match[0]

    def expanded(text: str) -> str:
        return _VARIABLE.sub(value, text)

    pieces = []
    for piece in re.findall(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|[^'\"\\]+", word, re.DOTALL):
        if piece.startswith("'"):
            pieces.append(piece[1:-1])
        elif piece.startswith('"'):
            # inside double quotes a backslash escapes only $, ", \ and a newline
            pieces.append(re.sub(r'\\([$"\\\n])', r"\1", expanded(piece[1:-1])))
        elif piece.startswith("\\"):
            pieces.append(piece[1:])
        else:
            pieces.append(expanded(piece))
    return "".join(pieces)


def quoted(text: str) -> str:
    """`text` quoted as one literal word."""
    if PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def unknown_variable(text: str) -> bool:
    """Whether `text`, from `unquoted`, still contains a variable."""
    return bool(_VARIABLE.search(text))
