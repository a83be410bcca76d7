"""The tree of a squashfs with everything an inode has, read by sqfs2tar and, as a second witness, by unsquashfs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

XATTR = "SCHILY.xattr."


@dataclass(frozen=True, kw_only=True)
class Inode:
    """One name, and all that its inode has. `links` are the names that share it, where there are several."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, str], ...]
    digest: str
    links: frozenset[str]


def tree_of(squashfs: Path) -> dict[str, Inode]:
    """Path -> inode, of every name in the squashfs; the root's path is empty."""
    found: dict[str, tuple[tarfile.TarInfo, str]] = {}
    hard: dict[str, str] = {}
    with subprocess.Popen(["sqfs2tar", "-s", "-r", ".", squashfs], stdout=subprocess.PIPE) as reader:
        stream = cast("IO[bytes]", reader.stdout)
        with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive:
            for member in archive:
                path = _plain(member.name)
                if member.islnk():
                    hard[path] = _plain(member.linkname)
                else:
                    found[path] = (member, _digest(archive, member))
        while stream.read(1 << 20):
            pass
    assert reader.returncode == 0
    groups: dict[str, set[str]] = defaultdict(set)
    for path, first in hard.items():
        groups[first] |= {first, path}
    return {
        path: _inode(*found[first], frozenset(groups.get(first, ())))
        for path, first in {**{path: path for path in found}, **hard}.items()
    }


def _inode(member: tarfile.TarInfo, digest: str, links: frozenset[str]) -> Inode:
    return Inode(
        kind=member.type.decode(),
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        size=member.size,
        target=member.linkname,
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        xattrs=tuple(sorted((name, value) for name, value in member.pax_headers.items() if name.startswith(XATTR))),
        digest=digest,
        links=links,
    )


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = archive.extractfile(member) if member.isreg() else None
    return hashlib.file_digest(content, "sha256").hexdigest() if content else ""  # type: ignore[arg-type]


def _plain(path: str) -> str:
    return path.removeprefix("./").strip("/") if path != "." else ""


def listing(squashfs: Path) -> dict[str, str]:
    """Path -> the line that unsquashfs lists it with, but for directories' sizes, which count what is in them."""
    command = ["unsquashfs", "-lln", str(squashfs)]
    output = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "TZ": "UTC0"}).stdout
    lines = {}
    for line in os.fsdecode(output).splitlines():
        facts, _, name = line.partition(" squashfs-root")
        words = facts.split()
        if words and words[0].startswith("d"):
            words[2] = ""
        lines[name.partition(" -> ")[0].lstrip("/")] = " ".join(words) + name.partition(" -> ")[2]
    return lines
