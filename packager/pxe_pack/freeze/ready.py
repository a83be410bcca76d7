"""Ready agents: archives that a release carries, so that packing needs neither a package index nor Debian's archive.

    pxe_pack/agents/<machine>-<key>.tar.xz

The key is the digest of the agent's sources and of this folder: an installation whose sources were changed does not
find an archive, and freezes its own agent. A clone carries none: `release/build` writes them, with `python -m
pxe_pack.freeze`, into the tree that it makes a release of.
"""

from __future__ import annotations

import lzma
import tarfile
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.freeze.agent import PROGRAM, FrozenAgent
from pxe_pack.tools import WorkError

AGENTS = Path(__file__).parents[1] / "agents"
SUFFIX = ".tar.xz"


def archive_path(machine: str, *, key: str) -> Path:
    """Where the archive for a processor (as `uname -m` says it) is, if there is one."""
    return AGENTS / f"{machine}-{key}{SUFFIX}"


def write_archive(agent: FrozenAgent, target: Path) -> None:
    """Write `agent` into the archive `target`: the same bytes for the same agent. Raises OSError."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(target, "w:xz", preset=9, format=tarfile.GNU_FORMAT) as archive:
        for path in [agent.path, *sorted(agent.path.rglob("*"))]:
            name = str(Path(PROGRAM, path.relative_to(agent.path)))
            archive.add(path, arcname=name, recursive=False, filter=plain)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack `archive` in `folder`; the agent's folder there. Raises WorkError if it is damaged."""
    try:
        with tarfile.open(archive, "r:xz") as opened:
            # The documented way to name a filter to a Python that may not know them (3.11.2).
            opened.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
            opened.extractall(folder)  # noqa: S202  an archive of this installation
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise WorkError(
            Problem(
                reference="agent-archive-damaged",
                message=f"{archive} is damaged: {error}",
                hint="install pxe-pack again, or freeze an agent with `pxe-pack freeze -o DIR` and use it with --agent",
            )
        ) from error
    return folder / PROGRAM
