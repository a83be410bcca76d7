"""Checks of the machine that packs: required programs and free disk space."""

from __future__ import annotations

import shutil
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.image.liveos import LiveImage
from pxe_pack.inject import Choice, original_iso


def needed_tools(choice: Choice, image: LiveImage) -> list[Problem]:
    """A problem for each program that packing needs and that is not installed."""
    programs = dict.fromkeys([*choice.injector.TOOLS, *original_iso.needed_tools(image)])
    return tools.missing(programs, reason=f"to pack with `{choice.name}`")


def disk_space(output: Path, *, needed: int) -> list[Problem]:
    """A problem if the file system of `output` has less than `needed` bytes free."""
    free = shutil.disk_usage(output.parent).free
    if free >= needed:
        return []
    return [
        Problem(
            reference="disk-full",
            message=f"packing needs up to {needed:,} bytes in {output.parent}, but only {free:,} are free",
            hint="use --output on another file system",
        )
    ]
