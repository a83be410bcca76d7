"""What packing takes of the machine that it runs on: programs, and room on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.inject import Choice


def needed_tools(choice: Choice) -> list[Problem]:
    """The programs that packing takes and that are not installed."""
    return tools.missing(choice.injector.TOOLS, reason=f"to pack by `{choice.name}`")


def disk_space(output: Path, *, needed: int) -> list[Problem]:
    """Whether the file system of `output` has `needed` bytes free."""
    free = shutil.disk_usage(output.parent).free
    if free >= needed:
        return []
    return [
        Problem(
            reference="disk-full",
            message=f"packing takes up to {needed:,} bytes in {output.parent}, and {free:,} are free",
            hint="choose a folder on another file system by --output",
        )
    ]
