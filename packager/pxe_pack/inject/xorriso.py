"""ISO images written by xorriso: a copy grown in place, or a new one.

Both keep the El Torito boot entries and the volume id. Growing (`-boot_image any keep`) appends what is new behind the
old data and rewrites the volume descriptors, some hundred bytes; a partition table for the disk that the ISO also is
(isohybrid) would then describe the old size, so such images are written anew (`-boot_image any replay`). Source:
xorriso(1), and a comparison of both kinds of output with their input.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.image.iso.reader import SECTOR, Iso
from pxe_pack.tools import WorkError

EDITOR = "xorriso"
BIG_FILE = (1 << 32) - SECTOR  # bytes; larger ones have several extents, which is ISO 9660 level 3
_LAST = -1_000_000_000  # a weight: what has less gets a higher address; of others than files none is as low
_MBR_ENTRIES, _MBR_END = 446, 510
_JOLIET = (b"%/@", b"%/C", b"%/E")  # escape sequences of a supplementary descriptor (ECMA-119 8.5.6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A file of this machine that goes into the ISO, owned by root. `mode` is st_mode, with the type."""

    path: str  # in the ISO, no leading slash
    source: Path | None  # None: a directory
    mode: int


def is_hybrid(iso: Iso) -> bool:
    """Whether the image is a partitioned disk too: it has entries in an MBR, or a GPT."""
    head = os.pread(iso.file.fileno(), 2 * 512, 0)
    partitioned = head[_MBR_END : _MBR_END + 2] == b"\x55\xaa" and any(head[_MBR_ENTRIES:_MBR_END])
    return partitioned or head[512:520] == b"EFI PART"


def grow(copy: Path, *, removed: Iterable[str], placed: Sequence[Placed], mtime: int, work: Path) -> None:
    """Change `copy`, a copy of an image: without `removed`, with `placed`. Raises WorkError."""
    _run(["-dev", f"stdio:{copy}", "-boot_image", "any", "keep"], _commands(removed, placed, mtime), mtime, work)


def rewrite(
    iso: Iso,
    target: Path,
    *,
    removed: Iterable[str],
    placed: Sequence[Placed],
    last: bool = False,
    mtime: int,
    work: Path,
) -> None:
    """Write the image to the new file `target`: without `removed`, with `placed`. Raises WorkError.

    With `last`, the content of what is placed stands behind that of all else.
    """
    drives = ["-indev", f"stdio:{iso.path}", "-outdev", f"stdio:{target}", "-boot_image", "any", "replay"]
    if _has_joliet(iso):
        drives += ["-joliet", "on"]
    commands = _commands(removed, placed, mtime)
    if last:
        commands += [f"-find {_quoted(f'/{item.path}')} -exec sort_weight {_LAST} --" for item in placed]
    _run(drives, commands, mtime, work)


def _commands(removed: Iterable[str], placed: Sequence[Placed], mtime: int) -> list[str]:
    lines = [f"-rm_r {_quoted(f'/{path}')} --" for path in removed]
    if any(item.source and stat.S_ISREG(item.mode) and item.source.stat().st_size > BIG_FILE for item in placed):
        lines.append("-compliance iso_9660_level=3")
    for item in placed:
        path = _quoted(f"/{item.path}")
        lines.append(f"-map_single {_quoted(str(item.source))} {path}" if item.source else f"-mkdir {path} --")
        if not stat.S_ISLNK(item.mode):
            lines.append(f"-chmod 0{stat.S_IMODE(item.mode):o} {path} --")
        lines += [f"-chown 0 {path} --", f"-chgrp 0 {path} --", f"-alter_date b-c ={mtime} {path} --"]
    return lines


def _run(drives: list[str], commands: list[str], mtime: int, work: Path) -> None:
    script = work / "xorriso.txt"
    # the surrogates of names that are no UTF-8 become the bytes they were
    script.write_text("\n".join([*commands, "-commit", "-end", ""]), errors="surrogateescape")
    # one fsync for each few MB is xorriso's habit; the output is renamed into place when all of it is there
    # names of an ISO without Rock Ridge: in lower case, as Linux shows them; xorriso gives every ISO Rock Ridge
    options = [
        "-no_rc",
        "-ecma119_map",
        "lowercase",
        "-abort_on",
        "FAILURE",
        "-report_about",
        "WARNING",
        "-stdio_sync",
        "off",
        "-overwrite",
        "on",
    ]
    # volume dates, and names made of the time, follow from the input: the same input gives the same bytes
    tools.run(
        EDITOR, *options, *drives, "-options_from_file", script, env={"SOURCE_DATE_EPOCH": str(mtime), "TZ": "UTC0"}
    )


def _quoted(word: str) -> str:
    """One word of a xorriso script: any text in quotes of the kind that it does not have."""
    for mark in ("'", '"'):
        if mark not in word and "\n" not in word:
            return f"{mark}{word}{mark}"
    raise WorkError(Problem(reference="name-unusable", message=f"xorriso cannot be given the name {word!r}"))


def _has_joliet(iso: Iso) -> bool:
    for sector in range(16, 32):
        descriptor = os.pread(iso.file.fileno(), SECTOR, sector * SECTOR)
        if len(descriptor) < SECTOR or descriptor[0] == 255 or descriptor[1:6] != b"CD001":  # noqa: PLR2004  ECMA-119 8.3
            return False
        if descriptor[0] == 2 and descriptor[88:91] in _JOLIET:  # noqa: PLR2004
            return True
    return False
