"""Answer the file tests in an `if` of a GRUB configuration, because over TFTP each of them is false.

GRUB cannot list directories over TFTP, so `[ -f FILE ]` is false for every file, and `search` finds nothing. The
image's files are known here, so each test is replaced by its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pxe_pack.image.grub.commands import INITRD, LINUX, plain_path
from pxe_pack.image.grub.expression import test
from pxe_pack.image.grub.script import Branch, Command, If, Node, Text, walk
from pxe_pack.image.grub.variables import CONSTANTS
from pxe_pack.image.grub.words import UNKNOWN, expanded, unknown_variable, unquoted

FILE_TESTS = frozenset({"-d", "-e", "-f", "-s"})

_ALWAYS, _NEVER = ["-n", "yes"], ["-z", "yes"]


def conditional(
    node: If,
    *,
    rewritten: Callable[[list[Node]], list[Node]],
    unreached: Callable[[list[Node]], list[Node] | None],
    exists: Callable[[str], bool],
    variables: Mapping[str, str],
) -> list[Node]:
    """The replacement for an `if`: just the taken branch if all its conditions can be decided here.

    `rewritten` rewrites a branch's body, `unreached` that of one that no node comes to; it may leave it out. `exists`
    tells whether the image has a path.
    """
    kept: list[Branch] = []
    reached = True
    for branch in node.branches:
        answer = _answer(branch, exists=exists, variables=variables)
        if answer is False:
            continue
        taken = _constant(branch) if reached else False
        body = unreached(branch.body) if taken is False else rewritten(branch.body)
        if body is None:
            continue
        branch.body = body
        kept.append(branch)
        reached = reached and not taken
        if answer is True:
            break
    if not kept or not any(_commands(branch.body) for branch in kept):
        return []
    if kept[0].condition is None:
        return inlined(kept[0].body)
    kept[0].keyword = "if"
    for branch in kept:
        branch.body = never_empty(branch.body)
        if branch is not kept[0]:
            branch.keyword = "else" if branch.condition is None else "elif"
    node.branches = kept
    return [node]


def _answer(branch: Branch, *, exists: Callable[[str], bool], variables: Mapping[str, str]) -> bool | None:
    """Whether the branch is always or never taken; None if GRUB has to decide. An `else`, once reached, always is."""
    if branch.condition is None:
        return True
    commands = _commands(branch.condition)
    for command in commands:
        if isinstance(command, Command):
            _answer_tests(command, branch, exists=exists, variables=variables)
    if len(commands) == 1 and isinstance(command := commands[0], Command):
        words = [unquoted(word) for word in command.words if word not in ("[", "test", "]")]
        negated = words.count("!") == 1
        words = [word for word in words if word != "!"]
        if words in (_ALWAYS, ["true"], _NEVER, ["false"]):
            answer = (words in (_ALWAYS, ["true"])) != negated
            if answer:
                branch.condition, branch.then, branch.keyword = None, "", "else"
            return answer
    return None


def _constant(branch: Branch) -> bool | None:
    """Whether a condition holds on every node, or on none, by GRUB's own constants; None if it depends on more."""
    commands = _commands(branch.condition or [])
    if len(commands) != 1 or not isinstance(command := commands[0], Command) or command.name not in ("[", "test"):
        return None
    words = expanded(command.words[1:], lambda name: CONSTANTS.get(name, UNKNOWN))
    return test(words[:-1] if words[-1:] == ["]"] else words, is_filled=lambda _: False)


def _answer_tests(
    command: Command, branch: Branch, *, exists: Callable[[str], bool], variables: Mapping[str, str]
) -> None:
    """Replace each file test by `-n yes` or `-z yes`, and a search by `true`; neither works over TFTP."""
    words = list(command.words)
    negation, name = (words[:1], words[1]) if words[0] == "!" and len(words) > 1 else ([], command.name)
    if name == "search" or name.startswith("search."):
        command.replace_words([*negation, "true"])
        return
    if name not in ("[", "test"):
        return
    for index, word in enumerate(words[:-1]):
        if word in FILE_TESTS:
            path = plain_path(unquoted(words[index + 1], variables))
            if unknown_variable(path):
                # the path is unknown: assume it exists if it guards a kernel or an initrd
                found = any(inner.name in LINUX | INITRD for inner in walk(branch.body))
            else:
                found = exists(path)
            words[index : index + 2] = _ALWAYS if found else _NEVER
    if words != command.words:
        command.replace_words(words)


def _commands(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if not isinstance(node, Text)]


def never_empty(body: list[Node]) -> list[Node]:
    """`body`, or a `true` if it is empty: GRUB's grammar requires a command after `then` and between braces."""
    return body if _commands(body) else [Text("\n"), Command(words=["true"], gaps=["", ""]), Text("\n")]


def inlined(body: list[Node]) -> list[Node]:
    """A branch's body without leading and trailing separators and newlines."""
    start, end = 0, len(body)
    while start < end and _is_blank(body[start]):
        start += 1
    while end > start and _is_blank(body[end - 1]):
        end -= 1
    return body[start:end]


def _is_blank(node: Node) -> bool:
    return isinstance(node, Text) and not node.text.strip(" \t\r\n;")
