"""The agent's kernel arguments that pxe-pack writes into the boot entries of a layout, and takes out of them again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pxe_fetch.contract import facts
from pxe_fetch.contract.problem import Problem
from pxe_pack.image.grub.commands import LINUX
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.grub.script import Command, Node, parse, walk
from pxe_pack.image.grub.words import quoted, unquoted
from pxe_pack.tools import InputError

ARTIFACT_URL = f"{facts.PREFIX}.artifact_url"  # of a relocation
CONFIG, CONFIG_SHA256 = f"{facts.PREFIX}.config", f"{facts.PREFIX}.config.sha256"  # of a pinned configuration
PIN = (CONFIG, CONFIG_SHA256)


def with_arguments(cfg: str, *, name: str, without: Collection[str], added: Sequence[str] = ()) -> str:
    """The grub.cfg `cfg` with kernel arguments `added` to every entry, and those named in `without` removed.

    Raises InputError, with the file's `name`, if its syntax is invalid.
    """
    try:
        nodes = parse(cfg)
    except GrubSyntaxError as error:
        raise unsuitable(name, error) from error
    for command in kernels(nodes):
        words = replaced(command.words, without=without, added=added)
        if words != command.words:
            command.replace_words(words)
    return "".join(map(str, nodes))


def unsuitable(name: str | Path, error: GrubSyntaxError) -> InputError:
    """The error for a file of a layout that GRUB cannot run."""
    message = f"{name}:{error.line} is not a script for GRUB: {error}"
    hint = "correct the file, or pack again"
    return InputError(Problem(reference="grub-unsuitable", message=message, hint=hint))


def kernels(nodes: list[Node]) -> list[Command]:
    """The commands that load a kernel."""
    return [command for command in walk(nodes) if command.name in LINUX and len(command.words) > 1]


def replaced(words: Sequence[str], *, without: Collection[str], added: Sequence[str] = ()) -> list[str]:
    """The words of a command that loads a kernel, with other arguments."""
    names = {facts.argument(name) for name in without}
    kept = [word for word in words if facts.argument(unquoted(word).partition("=")[0]) not in names]
    end = kept.index("--") if "--" in kept else len(kept)  # what follows a lone "--" is for init
    return [*kept[:end], *map(quoted, added), *kept[end:]]
