"""A layout as one reproducible tar archive: the same files give the same bytes.

The format is POSIX.1-2001 (pax), which all current tar programs read. The manifest comes first, so that pxe-pack
recognises its own archives.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import committing
from pxe_pack.layout.manifest import MANIFEST
from pxe_pack.output import Staging, locked, new_staging, parent_problem, staging_folder
from pxe_pack.tools import WorkError


@contextmanager
def tar_staging(output: Path, *, mtime: int) -> Iterator[Staging]:
    """A staging area for the archive `output`. When the block succeeds, its layout is archived; the rest is removed.

    `mtime` is the time of all members, in seconds since 1970. Raises WorkError if `output` has changed in the meantime
    and cannot be replaced.
    """
    with staging_folder(output) as root:
        made = new_staging(root, output=output)
        yield made
        archive = root / "layout.tar"
        write(made.layout, archive, mtime=mtime)
        with locked(output.parent), committing():
            if problem := tar_problem(output):
                raise WorkError(problem)
            archive.replace(output)


def write(layout: Path, archive: Path, *, mtime: int) -> None:
    """Write the files below `layout` into `archive`. Raises OSError."""
    names = sorted(path.relative_to(layout).as_posix() for path in layout.rglob("*"))
    names.sort(key=lambda name: name != MANIFEST)
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            member = tar.gettarinfo(layout / name, arcname=name)
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime = mtime
            if member.isfile():
                with (layout / name).open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    archive.chmod(0o644)


def tar_problem(output: Path) -> Problem | None:
    """The reason why the archive `output` cannot be written or replaced; None if it can."""
    if problem := parent_problem(output):
        return problem
    if not output.exists() and not output.is_symlink():
        return None
    if output.is_file() and not output.is_symlink() and _is_ours(output):
        return None
    return Problem(
        reference="output-foreign",
        message=f"the output {output} exists and was not written by pxe-pack --format tar",
        hint="choose another name with --output, or move it away",
    )


def _is_ours(archive: Path) -> bool:
    try:
        with tarfile.open(archive, "r:") as tar:
            first = tar.next()
            content = tar.extractfile(first) if first and first.name == MANIFEST else None
            return content is not None and b'"pxe_pack"' in content.read(1 << 20)
    except (OSError, tarfile.TarError):
        return False
