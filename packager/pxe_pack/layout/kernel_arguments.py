"""The kernel arguments that pxe-pack gives the nodes of a layout, in its grub.cfg."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from pxe_fetch.contract import facts
from pxe_fetch.contract.problem import Problem
from pxe_pack.image.grub.commands import LINUX
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.grub.script import Command, Node, parse, walk
from pxe_pack.image.grub.words import quoted, unquoted
from pxe_pack.tools import InputError

ARTIFACT_URL = f"{facts.PREFIX}.artifact_url"  # where the artifacts are after a relocation (docs/decisions/0007)
ISO_SHA256 = f"{facts.PREFIX}.{facts.ISO_SHA256}"  # with which the initrd compares the ISO (docs/decisions/0042)
BASE_URL = f"{facts.PREFIX}.base_url"  # what replaces `defaults.base_url`
# Of a pinned configuration (docs/decisions/0041).
CONFIG, CONFIG_SHA256 = f"{facts.PREFIX}.config", f"{facts.PREFIX}.config.sha256"
PIN = (CONFIG, CONFIG_SHA256)


def with_iso_digest(cfg: str, *, boot_url: str, sha256: str) -> str:
    """The grub.cfg `cfg` with the ISO's digest in each entry that boots from `boot_url`, in place of another one.

    Raises InputError if its syntax is invalid.
    """
    nodes = _parsed(cfg)
    for command in kernels(nodes):
        words = without(command.words, [ISO_SHA256])
        if f"root=live:{boot_url}" in map(unquoted, words):
            words = with_argument(words, ISO_SHA256, sha256)
        replace_words(command, words)
    return "".join(map(str, nodes))


def without_arguments(cfg: str, names: Collection[str]) -> str:
    """The grub.cfg `cfg` without the kernel arguments called `names`. Raises InputError if its syntax is invalid."""
    return with_arguments(cfg, {}, replaces=names)


def with_arguments(cfg: str, added: Mapping[str, str], *, replaces: Collection[str]) -> str:
    """The grub.cfg `cfg` with the arguments `added` in each entry, in place of those called `replaces`.

    Raises InputError if its syntax is invalid.
    """
    nodes = _parsed(cfg)
    for command in kernels(nodes):
        replace_words(command, edited(command.words, added, replaces=replaces))
    return "".join(map(str, nodes))


def edited(words: Sequence[str], added: Mapping[str, str], *, replaces: Collection[str]) -> list[str]:
    """`words` with the arguments `added` in place of those called `replaces`."""
    words = without(words, replaces)
    for name, value in added.items():
        words = with_argument(words, name, value)
    return words


def kernels(nodes: list[Node]) -> Iterator[Command]:
    """The commands that load a kernel."""
    return (command for command in walk(nodes) if command.name in LINUX and len(command.words) > 1)


def with_argument(words: Sequence[str], name: str, value: str) -> list[str]:
    """`words` with the argument at the end; what follows a lone "--" is for init."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], quoted(f"{name}={value}"), *words[end:]]


def without(words: Sequence[str], names: Collection[str]) -> list[str]:
    """`words` without the arguments called `names`; the kernel treats `-` and `_` alike."""
    alike = {facts.argument(name) for name in names}
    return [word for word in words if facts.argument(unquoted(word).partition("=")[0]) not in alike]


def replace_words(command: Command, words: list[str]) -> None:
    """Give `command` these words; its text stays as it is if they are the same."""
    if words != command.words:
        command.replace_words(words)


def _parsed(cfg: str) -> list[Node]:
    try:
        return parse(cfg)
    except GrubSyntaxError as error:
        raise unsuitable(GRUB_CFG, error) from error


def unsuitable(name: str | Path, error: GrubSyntaxError) -> InputError:
    """The error for a file of a layout that GRUB cannot run."""
    message = f"{name}:{error.line} is not a script for GRUB: {error}"
    hint = "correct the file, or pack again"
    return InputError(Problem(reference="grub-unsuitable", message=message, hint=hint))
