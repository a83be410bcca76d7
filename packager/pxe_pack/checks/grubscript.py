"""Whether grub.cfg holds over TFTP: nothing in it that has to list a directory, or find a medium.

Source: GRUB manual, "Network"; GRUB over TFTP cannot list directories, so `[ -f … ]` is false for every file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.grub.conditions import FILE_TESTS, INITRD, LINUX
from pxe_pack.image.grub.script import Command, If, Node, parse, unquoted, walk


def grub_script(subject: Subject) -> Iterator[Problem]:
    """What of grub.cfg does not work over TFTP: notes for an image, since packing mends them."""
    nodes = parse(subject.grub_cfg)
    found = {problem.reference: problem for problem in _found(nodes)}
    for problem in found.values():
        if subject.layout:
            yield problem
        else:
            yield replace(problem, severity="note", hint="nothing: packing mends it")
    if subject.layout:
        yield from _missing(subject)


def _found(nodes: list[Node]) -> Iterator[Problem]:
    yield from _guards(nodes)
    for command in walk(nodes):
        words = [unquoted(word) for word in command.words]
        if command.name == "blscfg":
            yield Problem(
                reference="grub-blscfg",
                message="grub.cfg takes its entries from files (`blscfg`), which GRUB cannot list over TFTP",
                hint="write the entries into grub.cfg; pxe-pack does, when it packs the image",
            )
        elif command.name == "save_env":
            yield Problem(
                reference="grub-save-env",
                message="grub.cfg writes its environment (`save_env`), which it cannot over TFTP",
                hint="take it out",
                severity="warning",
            )
        elif command.name == "search" or command.name.startswith("search."):
            yield Problem(
                reference="grub-search",
                message="grub.cfg looks for a medium (`search`): over TFTP it finds none, or a disk of the node",
                hint="take it out",
                severity="warning",
            )
        elif _sets_root(words):
            yield Problem(
                reference="grub-root",
                message=f"grub.cfg sets {words[-1]}: what it loads is then looked for there, and not on the server",
                hint="take it out",
            )
        elif command.name == "for" and any("*" in word for word in command.words):
            yield Problem(
                reference="grub-glob",
                message=f"grub.cfg goes through files ({' '.join(command.words)}), which GRUB cannot list over TFTP",
                hint="name each file",
            )


def _sets_root(words: list[str]) -> bool:
    assignment = words[-1] if len(words) in (1, 2) and words[0] in ("set", words[-1]) else ""
    return assignment.startswith("root=") and not assignment.startswith(
        ("root=(tftp", "root=tftp", "root=$", "root=net")
    )


def _guards(nodes: list[Node]) -> Iterator[Problem]:
    """Tests for files with a kernel or an initrd behind them."""
    for node in nodes:
        if isinstance(node, If):
            for branch in node.branches:
                tests = [command for command in walk(branch.condition or []) if _tests_a_file(command)]
                loads = any(command.name in LINUX | INITRD for command in walk(branch.body))
                if tests and loads:
                    yield Problem(
                        reference="grub-file-test",
                        message=f"grub.cfg loads a kernel or an initrd only if `{str(tests[0]).strip()}`, "
                        "which is false for every file over TFTP",
                        hint="take the `if` away; pxe-pack does, when it packs the image",
                    )
                yield from _guards(branch.body)
        elif not isinstance(node, Command) and hasattr(node, "body"):
            yield from _guards(node.body)


def _tests_a_file(command: Command) -> bool:
    return command.name in ("[", "test", "!") and bool(FILE_TESTS & set(command.words))


def _missing(subject: Subject) -> Iterator[Problem]:
    for entry in subject.menu.entries:
        for path in (entry.kernel, *entry.initrds):
            if not subject.has(path):
                yield Problem(
                    reference="grub-no-file",
                    message=f"the entry {entry.title!r} loads {path}, which the layout does not have",
                    hint="put it there, or take the entry out",
                )
