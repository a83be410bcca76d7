"""Checks of the machine that packs: required programs and free disk space."""

from __future__ import annotations

import shutil
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.inject import Choice, PackedIso


def needed_tools(choice: Choice, packed: PackedIso | None) -> list[Problem]:
    """A problem for each program that packing an image, which may be `packed` already, needs and is not installed."""
    programs = dict.fromkeys([*choice.injector.TOOLS, *(packed.needed_tools if packed else ())])
    return tools.missing(programs, reason=f"to pack with `{choice.name}`")


def disk_space(output: Path, *, needed: int, work: str = "packing") -> list[Problem]:
    """A problem if the file system of `output` has less than the `needed` bytes of the `work` free."""
    free = shutil.disk_usage(output.parent).free
    if free >= needed:
        return []
    return [
        Problem(
            reference="disk-full",
            message=f"{work} needs up to {needed:,} bytes in {output.parent}, but only {free:,} are free",
            hint="free some space, or use --output on another file system",
        )
    ]
