"""Which glibc a tree of programs and libraries needs, and for which processor it was built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pxe_fetch.contract.problem import Problem
from pxe_pack.freeze.elf import Elf, ElfError, elf_files
from pxe_pack.tools import InputError


class GlibcVersion(NamedTuple):
    """A glibc release; compares as one."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


# Versions that stand for a feature of the loader and carry no number: the release that brought them (glibc's NEWS).
_FEATURES = {
    "GLIBC_ABI_DT_RELR": GlibcVersion(2, 36),
    "GLIBC_ABI_GNU2_TLS": GlibcVersion(2, 42),
    "GLIBC_ABI_GNU_TLS": GlibcVersion(2, 42),
}


def parse_glibc(text: str) -> GlibcVersion | None:
    """The release in `2.36`, `2.36-9+deb12u10`, `GLIBC_2.36` or `GLIBC_2.2.5`; None where there is none."""
    found = re.match(r"(?:GLIBC_)?(\d+)\.(\d+)", text)
    return GlibcVersion(int(found[1]), int(found[2])) if found else None


def elf_floor(elf: Elf) -> GlibcVersion | None:
    """The oldest glibc that will load `elf`, None when it needs no particular one."""
    needs = [need.version for need in elf.version_needs if not need.weak and need.version.startswith("GLIBC_")]
    releases = [_FEATURES.get(version) or parse_glibc(version) for version in needs]
    return max((release for release in releases if release), default=None)


def glibc_floor(tree: Path) -> GlibcVersion:
    """The oldest glibc that will load every ELF file below `tree`; 2.0 when there is none that says.

    Raises InputError for a damaged ELF file.
    """
    try:
        floors = [floor for elf in elf_files(tree) if (floor := elf_floor(elf))]
    except ElfError as error:
        raise InputError(_damaged(error)) from error
    return max(floors, default=GlibcVersion(2, 0))


def machine_of(tree: Path) -> str:
    """The processor (as `uname -m` says it) that the ELF files below `tree` are for.

    Raises InputError when there is no ELF file, when two differ, or when one is damaged.
    """
    first: Elf | None = None
    try:
        for elf in elf_files(tree):
            first = first or elf
            if elf.machine != first.machine:
                raise InputError(
                    Problem(
                        reference="agent-machines-mixed",
                        message=f"{first.name} is for {first.machine}, {elf.name} for {elf.machine}",
                        hint="give a folder that was frozen on one machine",
                    )
                )
    except ElfError as error:
        raise InputError(_damaged(error)) from error
    if first is None:
        raise InputError(
            Problem(
                reference="agent-no-programs",
                message=f"{tree} has no ELF program in it",
                hint="give the folder that holds the executable `pxe-fetch`",
            )
        )
    return first.machine


def _damaged(error: ElfError) -> Problem:
    return Problem(reference="agent-elf-damaged", message=str(error), hint="freeze the agent again")
