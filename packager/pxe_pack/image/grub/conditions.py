"""An `if` of a GRUB configuration with its questions about files answered: over TFTP each of them is false.

GRUB over TFTP cannot list a directory, so `[ -f FILE ]` says no of every file, and `search` finds nothing. What the
image has is known here, so that the answer can be put in the question's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pxe_pack.image.grub.script import Branch, Command, If, Node, Text, unknown_variable, unquoted, walk

LINUX = frozenset({"linux", "linuxefi", "linux16"})
INITRD = frozenset({"initrd", "initrdefi", "initrd16"})
FILE_TESTS = frozenset({"-d", "-e", "-f", "-s"})

_ALWAYS, _NEVER = ["-n", "yes"], ["-z", "yes"]


def plain_path(path: str) -> str:
    """`(hd0,1)/boot/x` and `($root)/boot/x` as `/boot/x`."""
    return re.sub(r"^\([^)]*\)", "", path)


def conditional(
    node: If,
    *,
    rewritten: Callable[[list[Node]], list[Node]],
    exists: Callable[[str], bool],
    variables: Mapping[str, str],
) -> list[Node]:
    """What stands in the place of an `if`: only the branch itself where nothing is asked but what is known here.

    `rewritten` makes of a branch's body what it is to be; `exists` says of a path whether the image has it.
    """
    kept: list[Branch] = []
    for branch in node.branches:
        answer = _answer(branch, exists=exists, variables=variables)
        if answer is False:
            continue
        branch.body = rewritten(branch.body)
        kept.append(branch)
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
    """Whether the branch is always or never taken; None when GRUB has to see. An `else` is, when it is come to."""
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


def _answer_tests(
    command: Command, branch: Branch, *, exists: Callable[[str], bool], variables: Mapping[str, str]
) -> None:
    """Put `-n yes` or `-z yes` for each test of a file, and `true` for a search: both have no answer over TFTP."""
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
                # of those that cannot be known, what guards a kernel or initrd has to be taken
                found = any(inner.name in LINUX | INITRD for inner in walk(branch.body))
            else:
                found = exists(path)
            words[index : index + 2] = _ALWAYS if found else _NEVER
    if words != command.words:
        command.replace_words(words)


def _commands(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if not isinstance(node, Text)]


def never_empty(body: list[Node]) -> list[Node]:
    """GRUB's grammar wants a command between `then` and `fi`, and between braces."""
    return body if _commands(body) else [Text("\n"), Command(words=["true"], gaps=["", ""]), Text("\n")]


def inlined(body: list[Node]) -> list[Node]:
    """A branch's body without the separators and comments' newlines around it."""
    start, end = 0, len(body)
    while start < end and _is_blank(body[start]):
        start += 1
    while end > start and _is_blank(body[end - 1]):
        end -= 1
    return body[start:end]


def _is_blank(node: Node) -> bool:
    return isinstance(node, Text) and not node.text.strip(" \t\r\n;")
