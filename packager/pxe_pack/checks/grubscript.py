"""Checks that grub.cfg works over TFTP: it must not list directories or search for a medium.

Source: GRUB manual, "Network"; GRUB over TFTP cannot list directories, so `[ -f … ]` is false for every file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.grub.commands import INITRD, LINUX
from pxe_pack.image.grub.conditions import FILE_TESTS
from pxe_pack.image.grub.script import Command, If, Node, parse, walk
from pxe_pack.image.grub.words import unquoted


def grub_script(subject: Subject) -> Iterator[Problem]:
    """Commands in grub.cfg that do not work over TFTP. For an image they are notes, because packing fixes them."""
    nodes = parse(subject.grub_cfg)
    found = {problem.reference: problem for problem in _found(nodes)}
    for problem in found.values():
        if subject.layout:
            yield problem
        else:
            yield replace(problem, severity="note", hint="no action needed: packing fixes it")


def _found(nodes: list[Node]) -> Iterator[Problem]:
    yield from _guards(nodes)
    for command in walk(nodes):
        words = [unquoted(word) for word in command.words]
        if command.name == "blscfg":
            yield Problem(
                reference="grub-blscfg",
                message="grub.cfg reads its entries from files (`blscfg`), which GRUB cannot list over TFTP",
                hint="write the entries into grub.cfg; pxe-pack does this when it packs the image",
            )
        elif command.name == "save_env":
            yield Problem(
                reference="grub-save-env",
                message="grub.cfg writes its environment (`save_env`), which is impossible over TFTP",
                hint="remove the command",
                severity="warning",
            )
        elif command.name == "search" or command.name.startswith("search."):
            yield Problem(
                reference="grub-search",
                message="grub.cfg searches for a medium (`search`): over TFTP it finds none, or a disk of the node",
                hint="remove the command",
                severity="warning",
            )
        elif _sets_root(words):
            yield Problem(
                reference="grub-root",
                message=f"grub.cfg sets {words[-1]}: GRUB then loads files from there instead of the server",
                hint="remove the command",
            )
        elif command.name == "for" and any("*" in word for word in command.words):
            yield Problem(
                reference="grub-glob",
                message=f"grub.cfg loops over files ({' '.join(command.words)}), which GRUB cannot list over TFTP",
                hint="list the files by name",
            )


def _sets_root(words: list[str]) -> bool:
    assignment = words[-1] if len(words) in (1, 2) and words[0] in ("set", words[-1]) else ""
    return assignment.startswith("root=") and not assignment.startswith(
        ("root=(tftp", "root=tftp", "root=$", "root=net")
    )


def _guards(nodes: list[Node]) -> Iterator[Problem]:
    """`if` commands that test for a file before they load a kernel or an initrd."""
    for node in nodes:
        if isinstance(node, If):
            for branch in node.branches:
                tests = [command for command in walk(branch.condition or []) if _tests_a_file(command)]
                loads = any(command.name in LINUX | INITRD for command in walk(branch.body))
                if tests and loads:
                    yield Problem(
                        reference="grub-file-test",
                        message=f"grub.cfg loads a kernel or an initrd only if `{str(tests[0]).strip()}`, "
                        "which is always false over TFTP",
                        hint="remove the `if`; pxe-pack does this when it packs the image",
                    )
                yield from _guards(branch.body)
        elif not isinstance(node, Command) and hasattr(node, "body"):
            yield from _guards(node.body)


def _tests_a_file(command: Command) -> bool:
    return command.name in ("[", "test", "!") and bool(FILE_TESTS & set(command.words))
