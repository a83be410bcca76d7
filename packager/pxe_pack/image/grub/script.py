"""Parse GRUB's script language into an editable tree that converts back to the text, as GRUB reads it.

Source: GRUB manual, 6.1 "Writing full configuration files directly" (words, quoting, reserved words); GRUB,
script/parser.y. Only the structure is parsed: words with their quoting, separators, comments, `{ }` blocks, `if`, and
loops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pxe_pack.image.grub.limits import GrubSyntaxError, check
from pxe_pack.image.grub.words import quoted, unquoted
from pxe_pack.image.limits import Limit

__all__ = ["GrubSyntaxError", "parse", "quoted", "unquoted", "walk"]

_TOKEN = re.compile(
    r"""
    (?P<space> (?:[ \t]|\\\n)++ )
  | (?P<comment> \#[^\n]*+ )
  | (?P<end> [\n;] )
  | (?P<word> (?: \$\{(?:\w++|[?\#*@])\} | [^\s;'"\\{}] | \\. | '[^']*+' | "(?:[^"\\]|\\.)*+" )++ | [{}] )
    """,
    re.VERBOSE | re.DOTALL,
)
_PASSED_OVER = re.compile(r"\r|\0[^\n]*")
_ENDS = frozenset({"}", "then", "elif", "else", "fi", "do", "done"})
_LOOPS = frozenset({"for", "while", "until"})


@dataclass(slots=True)
class Command:
    """A simple command: `words` as written, and the text between them: `gaps[i]` before word i, the last after all."""

    words: list[str]
    gaps: list[str]
    line: int = 1  # where it begins, from 1

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
    line: int = 1  # where it begins, from 1

    @property
    def name(self) -> str:
        """`menuentry`, `submenu` or `function`."""
        return unquoted(self.words[0])

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
class Loop:
    """`for name in words; do body; done`, or `while`/`until condition; do body; done`. Keeps all text in between."""

    keyword: str  # of while and until
    condition: list[Node]  # of `for`, the one Command `for name in words`, and separators
    do: str
    body: list[Node]
    tail: str

    def __str__(self) -> str:
        return self.keyword + "".join(map(str, self.condition)) + self.do + "".join(map(str, self.body)) + self.tail


@dataclass(slots=True)
class Text:
    """Text without meaning: separators, comments, space."""

    text: str

    def __str__(self) -> str:
        return self.text


Node = Command | Block | If | Loop | Text


@dataclass(slots=True)
class _Tokens:
    items: list[tuple[str, str, int]] = field(default_factory=list)  # kind, text, line
    at: int = 0
    depth: int = 0

    def peek(self) -> tuple[str, str]:
        return self.items[self.at][:2] if self.at < len(self.items) else ("", "")

    def take(self) -> str:
        self.at += 1
        return self.items[self.at - 1][1]

    def space(self) -> str:
        return self.take() if self.peek()[0] == "space" else ""

    @property
    def line(self) -> int:
        return self.items[min(self.at, len(self.items) - 1)][2] if self.items else 1

    def fail(self, message: str) -> GrubSyntaxError:
        return GrubSyntaxError(message, self.line)


def parse(text: str) -> list[Node]:
    """The script as a tree; `"".join(map(str, nodes))` is the original text, but for what GRUB passes over.

    GRUB reads no carriage return, and nothing of a line after a NUL, which ends a string in C (GRUB, normal/main.c,
    grub_file_getline). Raises GrubSyntaxError.
    """
    check(Limit.GRUB_BYTES, len(text))
    text = _PASSED_OVER.sub("", text)
    tokens = _Tokens()
    position, line = 0, 1
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found or not found.lastgroup:
            raise GrubSyntaxError(f"unclosed quote, or a lone backslash: {text[position:][:20]!r}", line)
        tokens.items.append((found.lastgroup, found[0], line))
        check(Limit.GRUB_TOKENS, len(tokens.items), line=line)
        line += found[0].count("\n")
        position = found.end()
    nodes = _nodes(tokens)
    if tokens.at < len(tokens.items):
        raise tokens.fail(f"unexpected {tokens.peek()[1]!r}")
    return nodes


def _nodes(tokens: _Tokens) -> list[Node]:
    nodes: list[Node] = []
    tokens.depth += 1
    check(Limit.GRUB_DEPTH, tokens.depth, line=tokens.line)
    while tokens.at < len(tokens.items):
        kind, text = tokens.peek()
        if kind != "word":
            nodes.append(Text(tokens.take()))
        elif text in _ENDS:
            break
        elif text == "if":
            nodes.append(_if(tokens))
        elif text in _LOOPS:
            nodes.append(_loop(tokens))
        else:
            nodes.append(_command(tokens))
    tokens.depth -= 1
    return nodes


def _command(tokens: _Tokens) -> Command | Block:
    line = tokens.line
    words, gaps = [tokens.take()], [""]
    while True:
        gap = tokens.space()
        if words[0] == "function" and len(words) == 2:  # noqa: PLR2004  its name; here newlines may come before the {
            while tokens.peek()[1] == "\n" or tokens.peek()[0] == "space":
                gap += tokens.take()
        kind, text = tokens.peek()
        if kind == "word" and text == "{":
            head = "".join(a + b for a, b in zip(gaps, words, strict=True)) + gap + tokens.take()
            body = _nodes(tokens)
            if tokens.peek()[1] != "}":
                raise tokens.fail("unclosed `{`")
            return Block(head=head, words=words, body=body, tail=tokens.take(), line=line)
        if kind != "word" or text == "}":
            gaps.append(gap)
            return Command(words=words, gaps=gaps, line=line)
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


def _loop(tokens: _Tokens) -> Loop:
    if tokens.peek()[1] == "for":
        keyword, first = "", [_command(tokens)]
    else:
        keyword, first = tokens.take(), []
    condition: list[Node] = [*first, *_nodes(tokens)]
    if tokens.peek()[1] != "do":
        raise tokens.fail("a loop without `do`")
    do = tokens.take()
    body = _nodes(tokens)
    if tokens.peek()[1] != "done":
        raise tokens.fail("a loop without `done`")
    return Loop(keyword=keyword, condition=condition, do=do, body=body, tail=tokens.take())


def walk(nodes: list[Node]) -> Iterator[Command]:
    """Every simple command in text order, including those in conditions, loops and blocks."""
    for node in nodes:
        if isinstance(node, Command):
            yield node
        elif isinstance(node, Block):
            yield from walk(node.body)
        elif isinstance(node, Loop):
            yield from walk(node.condition)
            yield from walk(node.body)
        elif isinstance(node, If):
            for branch in node.branches:
                yield from walk(branch.condition or [])
                yield from walk(branch.body)
