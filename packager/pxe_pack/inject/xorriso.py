"""Change ISO images with xorriso: grow a copy in place, or write a new image.

Both keep the El Torito boot entries and the volume id. Growing (`-boot_image any keep`) appends the new data to the old
and rewrites the volume descriptors, a few hundred bytes. The partition table of a hybrid ISO (isohybrid) would then
describe the old size, so such images are written from scratch (`-boot_image any replay`). Source: xorriso(1), and
comparing both kinds of output with their input.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_pack import tools
from pxe_pack.image.iso import descriptors
from pxe_pack.image.iso.descriptors import SECTOR
from pxe_pack.image.iso.reader import Iso

EDITOR = "xorriso"
BIG_FILE = (1 << 32) - SECTOR  # bytes; larger files need several extents, which is ISO 9660 level 3
CASE_DIFFERS = (
    "dracut finds the root filesystem only because Joliet's names have no case, and xorriso adds Rock Ridge's, which do"
)
_LAST = -1_000_000_000  # sort weight: a lower weight means a higher address; only files get one this low
_MBR_ENTRIES, _MBR_END = 446, 510


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A local file to be written into the ISO, owned by root. `mode` is st_mode, including the type."""

    path: str  # in the ISO, no leading slash
    source: Path | None  # None: a directory
    mode: int


def is_hybrid(iso: Iso) -> bool:
    """Whether the image is a partitioned disk as well: it has MBR entries, or a GPT."""
    head = os.pread(iso.file.fileno(), 2 * 512, 0)
    partitioned = head[_MBR_END : _MBR_END + 2] == b"\x55\xaa" and any(head[_MBR_ENTRIES:_MBR_END])
    return partitioned or head[512:520] == b"EFI PART"


def grow(copy: Path, *, placed: Sequence[Placed], mtime: int, work: Path) -> None:
    """Add `placed` to `copy`, a copy of an image, in place. Raises WorkError."""
    _run(["-dev", f"stdio:{copy}", "-boot_image", "any", "keep"], _commands((), placed, mtime), mtime, work)


def rewrite(
    iso: Iso,
    target: Path,
    *,
    removed: Iterable[str] = (),
    placed: Sequence[Placed] = (),
    last: str = "",
    mtime: int,
    work: Path,
) -> None:
    """Write the image to the new file `target`, without `removed` and with `placed`. Raises WorkError.

    The content of the file `last` comes after everything else.
    """
    drives = ["-indev", f"stdio:{iso.path}", "-outdev", f"stdio:{target}", "-boot_image", "any", "replay"]
    if descriptors.joliet(iso.file):
        drives += ["-joliet", "on"]
    commands = _commands(removed, placed, mtime)
    if last:
        commands.append(f"-find {_quoted(f'/{last}')} -exec sort_weight {_LAST} --")
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
    # surrogateescape restores the bytes of names that are not UTF-8
    script.write_text("\n".join([*commands, "-commit", "-end", ""]), errors="surrogateescape")
    # -stdio_sync off: by default xorriso calls fsync every few MB; the output is renamed into place when complete
    # -local_charset: by default it is the locale's, and converting the names of Joliet would depend on that
    # -ecma119_map lowercase: names of an ISO without Rock Ridge get the case Linux shows; xorriso adds Rock Ridge
    options = [
        "-no_rc",
        "-backslash_codes",
        "in_double_quotes",
        "-local_charset",
        "UTF-8",
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
    # volume dates, and names derived from the time, come from the input, so the same input gives the same bytes
    tools.run(
        EDITOR, *options, *drives, "-options_from_file", script, env={"SOURCE_DATE_EPOCH": str(mtime), "TZ": "UTC0"}
    )


def _quoted(word: str) -> str:
    """`word` for a xorriso script: in double quotes, with octal codes (xorriso(1), -backslash_codes) where needed."""
    return '"' + "".join(f"\\{ord(c):03o}" if c in '"\\' or c < " " else c for c in word) + '"'
