"""`pxe-pack freeze -o DIR`: freeze the agent with what Debian and the package index have today."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import held, temporary_folder
from pxe_pack.console import Console, joined
from pxe_pack.freeze import ARCHITECTURES, THIS_MACHINE, FrozenAgent, component_lines, default_cache, freeze_agent
from pxe_pack.output import parent_problem
from pxe_pack.tools import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `freeze`."""
    parser.description = (
        "Freeze the agent into a folder, for `--agent DIR`. Packing does so by itself, or uses the ready agent of a "
        "release. Use this for an agent with Debian's latest updates, or to take one to a machine that can reach "
        "neither Debian nor a package index."
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--arch",
        choices=tuple(ARCHITECTURES),
        default=THIS_MACHINE,
        help="the nodes' processor (default: this machine's); another one is emulated, which takes some minutes",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Freeze it. Raises InputError if the folder exists, and what `freeze_agent` raises."""
    output: Path = arguments.output.absolute()
    if output.exists() or output.is_symlink():
        message = f"{output} already exists"
        raise InputError(Problem(reference="freeze-exists", message=message, hint="choose another folder with -o"))
    if problem := parent_problem(output):
        raise InputError(problem)
    agent = freeze_agent(cache=default_cache(), console=console, machine=arguments.arch)
    with temporary_folder(prefix=f".{output.name}.pxe-pack-", parent=output.parent) as folder:
        copy = shutil.copytree(agent.path, folder / "agent", symlinks=True)
        with held():
            copy.rename(output)
    console.result({"output": str(output), "agent": agent.document()}, joined(_lines(agent, output)))
    return 0


def _lines(agent: FrozenAgent, output: Path) -> list[str]:
    needs = f"for {agent.machine} with glibc {agent.glibc} or newer"
    first = f"Wrote {output}: the agent {agent.version}, {agent.size / 1e6:.1f} MB, {needs}"
    return [first, *component_lines(agent.components)]
