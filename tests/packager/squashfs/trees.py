"""An image's content according to independent programs: sqfs2tar's attributes and content, unsquashfs's listing."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pxe_pack.tools import find


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Everything known about one path."""

    type: bytes
    mode: int
    uid: int
    gid: int
    mtime: float
    size: int
    link: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, str], ...]
    digest: str


@dataclass(kw_only=True)
class Tree:
    """Paths and their facts, and which of them share an inode."""

    facts: dict[str, Fact]
    groups: set[frozenset[str]]

    def without(self, *paths: str) -> Tree:
        """This tree without `paths` and everything below them."""

        def stays(path: str) -> bool:
            return not any(path == gone or path.startswith(gone + "/") for gone in paths)

        groups = {frozenset(filter(stays, group)) for group in self.groups}
        return Tree(
            facts={path: fact for path, fact in self.facts.items() if stays(path)},
            groups={group for group in groups if len(group) > 1},
        )


def _program(name: str) -> Path:
    path = find(name)
    assert path, f"{name} is needed"
    return path


def tree(image: Path) -> Tree:
    """Everything in `image` except sockets, as squashfs-tools-ng reads it."""
    facts: dict[str, Fact] = {}
    first: dict[str, str] = {}
    groups: defaultdict[str, set[str]] = defaultdict(set)
    with subprocess.Popen([_program("sqfs2tar"), image], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout
        assert reader.stderr
        with tarfile.open(fileobj=reader.stdout, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                path = member.name.rstrip("/")
                if member.islnk():
                    first[path] = member.linkname
                    groups[member.linkname] |= {member.linkname, path}
                    facts[path] = facts[member.linkname]
                    continue
                file = archive.extractfile(member) if member.isreg() else None
                facts[path] = Fact(
                    type=member.type,
                    mode=member.mode,
                    uid=member.uid,
                    gid=member.gid,
                    mtime=member.mtime,
                    size=member.size,
                    link=member.linkname,
                    device=(member.devmajor, member.devminor),
                    xattrs=tuple(sorted((k, v) for k, v in member.pax_headers.items() if "xattr" in k)),
                    digest=hashlib.file_digest(file, "sha256").hexdigest() if file else "",  # type: ignore[arg-type]
                )
        complaints = reader.stderr.read().decode()
    assert reader.returncode == 0, complaints
    assert not [line for line in complaints.splitlines() if "socket" not in line], complaints
    return Tree(facts=facts, groups={frozenset(group) for group in groups.values()})


def listing(image: Path, *options: str) -> dict[str, str]:
    """Path -> its line in `unsquashfs -lln`, without the sizes of directories. There must be no other output."""
    done = subprocess.run(
        [_program("unsquashfs"), *options, "-UTC", "-d", "", "-lln", image], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    lines: dict[str, str] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n"):
        found = re.match(r"(\S+ \d+/\d+) +(-?\d+(?:, *-?\d+)?) (\S+ \S+) (.*)$", line)
        assert found, line
        about, size, time, rest = found.groups()
        path = rest.split(" -> ")[0].removeprefix("/")
        lines[path] = " ".join((about, "" if about.startswith("d") else size, time, rest))
    return lines


def extract(image: Path, to: Path) -> None:
    """Unpack everything with unsquashfs, which must print nothing."""
    options = ["-strict-errors", "-quiet", "-no-progress", "-no-xattrs", "-d"]
    done = subprocess.run([_program("unsquashfs"), *options, to, image], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
