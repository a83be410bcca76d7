"""Images with more of everything than fits into a table's block, a run of entries or 16 bits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from packager.squashfs import trees
from packager.squashfs.images import Member, directory, empty_files, mksquashfs, mksquashfs_stream, mksquashfs_tree
from packager.squashfs.payload import WHEN, facts
from pxe_pack.image.limits import Limit
from pxe_pack.squashfs import Addition, File, Graft, Image, NewDirectory, NewFile, graft, prune


def difference(before: dict[str, str], after: dict[str, str]) -> tuple[set[str], set[str]]:
    """The paths that are new or changed, and those that were removed."""
    return {path for path in after if before.get(path) != after[path]}, before.keys() - after.keys()


@pytest.mark.slow
def test_a_directory_of_70000_names_gains_and_loses_some(tmp_path: Path) -> None:
    source = tmp_path / "source/d"
    source.mkdir(parents=True)
    for n in range(70_000):  # of a tar, mksquashfs would take a minute for it
        os.mknod(source / f"f{n:05}")
    image = mksquashfs_tree(tmp_path / "image", source.parent)
    out = tmp_path / "out"
    names = ["d/a", "d/f00000.5", "d/f34999.5", "d/f65535.5", "d/f69999.5", "d/z"]
    additions = [NewFile(path=name, mode=0o600, mtime=WHEN, content=name.encode()) for name in names]
    graft(image, additions=additions, removals=["d/f00000", "d/f12345", "d/f69999"], output=out)
    gained, lost = difference(trees.listing(image), trees.listing(out))
    assert gained == set(names)
    assert lost == {"d/f00000", "d/f12345", "d/f69999"}
    with Image.open(out) as opened:
        for n in range(0, 70_000, 777):
            assert (opened.find(f"d/f{n:05}") is None) is (n == 0)
            assert opened.find(f"d/f{n:05}x") is None
        for name in names:
            assert opened.find(name) is not None


@pytest.mark.slow
def test_a_tree_of_200000_inodes_gains_a_few_and_is_given_back(tmp_path: Path) -> None:
    stream = empty_files([f"d{folder}" for folder in range(200)], 1000)
    image = mksquashfs_stream(tmp_path / "image", stream, "-comp", "zstd", "-Xcompression-level", "1")
    out, back = tmp_path / "out", tmp_path / "back"
    additions: list[Addition] = [NewDirectory(path="d7/new", mode=0o755, mtime=WHEN)]
    additions.append(NewFile(path="d7/new/f", mode=0o755, mtime=WHEN, content=b"x"))
    report = graft(image, additions=additions, output=out)
    assert difference(trees.listing(image), trees.listing(out)) == ({"d7/new", "d7/new/f"}, set())
    # Two that are new; the root and d7 have new inodes, the old ones are still in the table.
    with Image.open(image) as opened:
        assert report.inodes == opened.superblock.inodes + 4
        # What is written, the old tables apart, does not depend on how much there is.
        tables = opened.superblock.bytes_used - opened.superblock.inode_table
    assert report.size - report.kept < tables + 40_000
    prune(out, output=back)
    assert back.read_bytes() == image.read_bytes()


def test_a_graft_of_many_files_makes_large_tables(tmp_path: Path) -> None:
    image = mksquashfs(tmp_path / "image", [directory("d"), Member(path="d/there", data=b"there")])
    out = tmp_path / "out"
    additions: list[Addition] = [
        NewFile(path=f"d/{n:05}", mode=0o644, uid=n % 5000, mtime=n, content=b"", xattrs={"user.n": b"%d" % (n % 2000)})
        for n in range(20_000)
    ]
    graft(image, additions=additions, output=out)
    gained, lost = difference(trees.listing(image), trees.listing(out))
    assert (len(gained), lost) == (20_000, set())
    found = trees.tree(out)
    assert found.facts["d/12345"].uid == 12345 % 5000
    assert found.facts["d/12345"].xattrs == (("SCHILY.xattr.user.n", str(12345 % 2000)),)
    assert len({fact.xattrs for fact in found.facts.values()}) == 2001


def test_an_image_heavy_with_xattrs_keeps_them_all(tmp_path: Path) -> None:
    """Thousands of sets in several blocks of their table, and long values that many of them share, out of line."""
    shared = {f"user.shared{n}": bytes([97 + n]) * 300 for n in range(4)}
    members = [directory("d")]
    members += [
        Member(
            path=f"d/{n:04}",
            xattrs={"user.own": b"%d" % n * (n % 40 + 1), **dict(list(shared.items())[: n % 5])}
            | {"security.selinux": b"system_u:object_r:type%d_t:s0\0" % (n % 700)},
        )
        for n in range(4000)
    ]
    label = {"security.selinux": b"system_u:object_r:new_t:s0\0"}
    image, out = mksquashfs(tmp_path / "image", members), tmp_path / "out"
    additions = [
        NewFile(path="d/new", mode=0o644, mtime=WHEN, content=b"x", xattrs=label | shared),
        NewFile(path="d/1234", mode=0o644, mtime=WHEN, content=b"in its place", xattrs=label),
    ]
    graft(image, additions=additions, output=out)
    before, after = trees.tree(image), trees.tree(out)
    assert len({fact.xattrs for fact in before.facts.values()}) > 3900
    assert after.facts == before.facts | facts(additions)
    assert difference(trees.listing(image), trees.listing(out)) == ({"d/new", "d/1234"}, set())


class SparseSink:
    """A file to which a graft's new part is written at its final position, after a hole."""

    def __init__(self, file: BinaryIO, position: int) -> None:
        self.file, self.position = file, position
        file.seek(position)

    def put(self, data: bytes) -> int:
        self.file.write(data)
        self.position += len(data)
        return self.position - len(data)


def test_what_is_added_behind_4_gib_is_found_there(tmp_path: Path) -> None:
    image = mksquashfs(tmp_path / "image", [directory("d"), Member(path="d/there", data=b"there" * 999)])
    before, old = trees.tree(image), image.read_bytes()
    with image.open("rb+") as file:
        file.truncate((4 << 30) + 12_345)  # padding, as of an image on a partition; it takes no room here
    additions = [NewFile(path="d/far", mode=0o640, mtime=WHEN, content=b"far away" * 50_000)]
    out = tmp_path / "out"
    with Image.open(image) as opened, out.open("xb") as file:
        graft = Graft(opened, additions=additions)
        head = graft.write(SparseSink(file, graft.start))
        file.seek(0)
        file.write(head + old[96:])
    after = trees.tree(out)
    assert after.facts == before.facts | facts(additions)
    assert difference(trees.listing(image), trees.listing(out)) == ({"d/far"}, set())
    with Image.open(out) as opened:
        far = opened.find("d/far")
        assert isinstance(far, File)
        assert far.start > 4 << 30
        assert opened.read(far, limit=Limit.SQUASHFS_FILE) == b"far away" * 50_000
