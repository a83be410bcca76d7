"""The files in a layout's folder: what is there, what each is, and how one is taken over."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pxe_pack.hashing import copy_span

_SUM_LINE = re.compile(r"\\?[0-9a-f]{64}  (.+)")


def found_below(folder: Path) -> Iterable[str]:
    """The paths of all files, links and empty folders below `folder`, relative to it; those of folders end in `/`.

    Links are not followed. A folder that cannot be read counts as empty.
    """
    for top, folders, files in os.walk(folder):
        place = Path(top)
        links = [name for name in folders if (place / name).is_symlink()]
        yield from ((place / name).relative_to(folder).as_posix() for name in [*files, *links])
        if not folders and not files and place != folder:
            yield f"{place.relative_to(folder).as_posix()}/"


def what_is(path: str) -> str:
    """What a path from `found_below` is, for people."""
    return "an empty folder" if path.endswith("/") else "a file"


def mode_of(path: Path) -> int:
    """The st_mode of `path` itself; 0 if it does not exist, or cannot be looked at."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has none. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        with source.open("rb") as file:
            copy_span(file, target, offset=0, size=source.stat().st_size)


def sum_line(path: str, sha256: str) -> str:
    """A line of SHA256SUMS. As in coreutils, a line starts with a backslash if the name needed escaping."""
    escaped = path.replace("\\", "\\\\")
    return f"{'' if escaped == path else chr(92)}{sha256}  {escaped}\n"


def summed_paths(text: str) -> Iterator[str]:
    """The paths in `text`, lines that `sum_line` has written; other lines are passed over."""
    for line in text.splitlines():
        if match := _SUM_LINE.fullmatch(line):
            yield match[1].replace("\\\\", "\\")
