"""The kernel mounts grafted images, where we are allowed to mount."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packager.squashfs.images import KINDS, Member, directory, mksquashfs
from packager.squashfs.payload import WHEN, ours, payload
from packager.squashfs.trees import Fact
from pxe_pack.squashfs import NewDirectory, NewFile, graft
from pxe_pack.tools import find

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="mounting takes root and loop devices"
)
TYPES = {
    stat.S_IFDIR: b"5",
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFBLK: b"4",
    stat.S_IFCHR: b"3",
    stat.S_IFIFO: b"6",
}


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    where = [str(find("mount")), "-t", "squashfs", "-o", "loop,ro", str(image), str(folder)]
    done = subprocess.run(where, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([str(find("umount")), folder], check=True)


def below(folder: Path) -> Iterator[Path]:
    """Every file and folder. Path.rglob of Python 3.11.2 fails at a link whose target is too long."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def xattrs(path: Path) -> list[tuple[str, str]]:
    names = os.listxattr(path, follow_symlinks=False)
    if not (path.is_symlink() or path.is_file() or path.is_dir()):
        names = [name for name in names if not name.startswith("user.")]  # listed, and refused: xattr(7)
    found = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return sorted((f"SCHILY.xattr.{name}", value.decode("utf-8", "surrogateescape")) for name, value in found.items())


def readable(fact: Fact) -> list[tuple[str, str]]:
    special = fact.type not in {b"0", b"5"}
    return [(name, value) for name, value in fact.xattrs if not (special and name.startswith("SCHILY.xattr.user."))]


# lzma is squashfs-tools' alone; the rest depends on how the kernel was built.
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"lzma"}))
def test_the_kernel_reads_every_inode_of_a_grafted_image(kind: str, images: Path, tmp_path: Path) -> None:
    image, out = images / f"kernel-{kind}", tmp_path / "out"
    KINDS[kind](image)
    graft(image, additions=payload(tmp_path), removals=["usr/bin/su", "tmp"], output=out)
    expected = ours(out)
    names: dict[int, set[str]] = {}
    with mounted(out, tmp_path / "mounted") as root:
        found = {}
        for path in below(root):
            name, about = str(path.relative_to(root)), path.lstat()
            names.setdefault(about.st_ino, set()).add(name)
            regular = stat.S_ISREG(about.st_mode)
            found[name] = (
                TYPES[stat.S_IFMT(about.st_mode)],
                stat.S_IMODE(about.st_mode),
                (about.st_uid, about.st_gid, about.st_mtime),
                about.st_size if regular else 0,
                str(path.readlink()) if path.is_symlink() else "",
                (os.major(about.st_rdev), os.minor(about.st_rdev)),
                xattrs(path),
                hashlib.sha256(path.read_bytes()).hexdigest() if regular else "",
            )
            if len(names[about.st_ino]) > 1:
                assert about.st_nlink > 1
    assert found == {
        name: (
            fact.type, fact.mode, (fact.uid, fact.gid, fact.mtime), fact.size, fact.link, fact.device,
            readable(fact), fact.digest,
        )
        for name, fact in expected.facts.items()
    }  # fmt: skip
    assert {frozenset(group) for group in names.values() if len(group) > 1} == expected.groups


def test_the_kernel_finds_every_name_of_a_large_directory_by_its_index(tmp_path: Path) -> None:
    image = mksquashfs(
        tmp_path / "image", [directory("many"), *(Member(path=f"many/{n:05}.conf") for n in range(0, 6000, 2))]
    )
    out = tmp_path / "out"
    added = [NewFile(path=f"many/{n:05}.conf", mode=0o600, mtime=WHEN, content=b"%d" % n) for n in range(1, 6000, 20)]
    graft(image, additions=[NewDirectory(path="x", mode=0o755, mtime=WHEN), *added], output=out)
    with mounted(out, tmp_path / "mounted") as root:
        assert sorted(path.name for path in (root / "many").iterdir()) == sorted(
            [f"{n:05}.conf" for n in range(0, 6000, 2)] + [f"{n:05}.conf" for n in range(1, 6000, 20)]
        )
        for n in range(6000):
            path = root / "many" / f"{n:05}.conf"
            assert path.exists() is (n % 2 == 0 or n % 20 == 1)
            if n % 20 == 1:
                assert path.read_bytes() == b"%d" % n
