"""`when`: what the configuration says of the nodes that an artifact is for."""

from __future__ import annotations

from pxe_fetch.contract import rules, template
from pxe_fetch.contract.model import When
from pxe_fetch.contract.section import Section


def read(section: Section | None) -> When:
    """The facts and kernel arguments that `section` asks for, each with its globs; problems are collected in it."""
    if section is None:
        return When()
    _check(section)
    facts = {key: globs for key in template.FACTS if (globs := section.one_or_more(key, rules.any_text))}
    cmdline: dict[str, tuple[str, ...]] = {}
    arguments = section.section("cmdline")
    if arguments:
        _check(arguments)
        for key in arguments.own_keys(rules.any_text):
            if globs := arguments.one_or_more(key, rules.any_text):
                cmdline[key.replace("-", "_")] = globs
    section.close()
    return When(facts=facts, cmdline=cmdline)


def _check(section: Section) -> None:
    """Whether each key has something behind it: without, the artifact would be for every node, which nobody means."""
    for key in section.mapping.entries:
        if not section.has(key) or section.is_empty_list(key):
            section.add(
                "when-empty",
                f"{section.path}.{key} has nothing behind it, so it would mean every node",
                where=section.where(key),
                hint="leave it out, or give the globs that mean the nodes: `*` is any value",
            )
