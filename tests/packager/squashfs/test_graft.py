"""Files grafted onto images of every kind: existing content is unchanged, and added files are there."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from packager.squashfs import trees
from packager.squashfs.payload import LABEL, WHEN, facts, ours, payload
from pxe_pack.squashfs import Graft, Image, NewDirectory, NewFile, NewSymlink, graft, prune
from pxe_pack.tools import find


def changed(before: trees.Tree, after: trees.Tree) -> dict[str, trees.Fact]:
    """What is in `after` and not, or different, in `before`."""
    assert before.groups == after.groups
    assert not before.facts.keys() - after.facts.keys()
    return {path: fact for path, fact in after.facts.items() if before.facts.get(path) != fact}


def test_reader_agrees_with_squashfs_tools_ng(image: Path) -> None:
    assert ours(image) == trees.tree(image)


def test_graft_adds_the_payload_and_changes_nothing_else(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    additions = payload(tmp_path)
    report = graft(image, additions=additions, output=out)

    expected = facts(additions)
    del expected["usr"]
    assert changed(trees.tree(image), trees.tree(out)) == expected
    assert ours(out) == trees.tree(out)
    assert sorted(path.lstrip("/") for path in report.added) == sorted(expected)
    assert report.replaced == report.removed == ()

    before, after = trees.listing(image), trees.listing(out)
    assert {path for path in after if before.get(path) != after[path]} == set(expected)
    assert not before.keys() - after.keys()


def test_graft_keeps_every_byte_but_the_superblocks(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    report = graft(an_image, additions=payload(tmp_path), output=out)
    old, new = an_image.read_bytes(), out.read_bytes()
    assert new[96 : len(old)] == old[96:]
    assert report.kept == len(old)
    assert report.size == len(new)
    assert len(new) % 4096 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user can't make device nodes, which the image has")
def test_unsquashfs_extracts_a_grafted_image_without_a_word(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    additions = payload(tmp_path)
    graft(an_image, additions=additions, output=out)
    trees.extract(out, tmp_path / "tree")
    for path, fact in facts(additions).items():
        written = tmp_path / "tree" / path
        if fact.digest:
            assert hashlib.sha256(written.read_bytes()).hexdigest() == fact.digest
        if fact.link:
            assert written.readlink() == Path(fact.link)
    assert (tmp_path / "tree/usr/bin/doas").stat().st_nlink == (3 if trees.tree(an_image).groups else 1)


def test_a_rewrite_of_the_tree_by_other_programs_gives_the_same_tree(gzip_image: Path, tmp_path: Path) -> None:
    """A second opinion: sqfs2tar, the payload appended to the tar, mksquashfs."""
    from packager.squashfs.images import Member, directory, tar

    additions = [
        NewDirectory(path="usr/lib/pxe-fetch", mode=0o750, uid=5, mtime=WHEN, xattrs=LABEL),
        NewFile(path="usr/lib/pxe-fetch/agent", mode=0o755, mtime=WHEN, content=b"agent" * 99_999, xattrs=LABEL),
        NewSymlink(path="usr/lib/systemd/system/wants", mode=0o777, mtime=WHEN, target="x"),
    ]
    former = subprocess.run([str(find("sqfs2tar")), gzip_image], capture_output=True, check=True).stdout
    added = directory("usr/lib/pxe-fetch", 0o750, uid=5, xattrs=LABEL)
    added.mtime = WHEN
    more = [
        added,
        Member(path="usr/lib/pxe-fetch/agent", mode=0o755, mtime=WHEN, data=b"agent" * 99_999, xattrs=LABEL),
        Member(path="usr/lib/systemd/system/wants", type=b"2", link="x", mtime=WHEN, mode=0o777),
    ]
    rewritten, grafted = tmp_path / "rewritten.squashfs", tmp_path / "grafted.squashfs"
    subprocess.run(
        [str(find("mksquashfs")), "-", rewritten, "-tar", "-noappend", "-quiet", "-no-progress", "-root-mode", "755"],
        input=former.rstrip(b"\0").ljust(-(-len(former.rstrip(b"\0")) // 512) * 512, b"\0") + tar(more),
        capture_output=True,
        check=True,
    )
    graft(gzip_image, additions=additions, output=grafted)
    assert trees.tree(grafted) == trees.tree(rewritten)
    old, new = trees.listing(rewritten), trees.listing(grafted)
    old.pop("", None), new.pop("", None)
    assert old == new


def test_an_addition_takes_the_place_of_what_has_its_name(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    additions = [
        NewFile(path="etc/passwd", mode=0o600, mtime=WHEN, content=b"changed"),
        NewFile(path="null", mode=0o600, mtime=WHEN, content=b"no device any more"),
        NewSymlink(path="usr/lib/text", mode=0o777, mtime=WHEN, target="noise"),
        NewFile(path="bin", mode=0o600, mtime=WHEN, content=b"no link any more"),
    ]
    report = graft(an_image, additions=additions, output=out)
    assert changed(trees.tree(an_image), trees.tree(out)) == facts(additions)
    assert sorted(report.replaced) == ["bin", "etc/passwd", "null", "usr/lib/text"]
    trees.listing(out)


def test_parents_may_be_symlinks_of_the_image(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    additions = [
        NewDirectory(path="lib", mode=0o700, mtime=1),  # leads to a directory: it is there
        NewFile(path="lib/systemd/system/a.service", mode=0o644, mtime=WHEN, content=b"a"),
        NewFile(path="bin/tool", mode=0o755, mtime=WHEN, content=b"b"),
        NewSymlink(path="sbin", mode=0o777, mtime=WHEN, target="./usr/../bin"),
        NewFile(path="sbin/other", mode=0o755, mtime=WHEN, content=b"c"),
    ]
    graft(an_image, additions=additions, output=out)
    new = changed(trees.tree(an_image), trees.tree(out))
    assert sorted(new) == ["sbin", "usr/bin/other", "usr/bin/tool", "usr/lib/systemd/system/a.service"]


def test_a_hard_linked_file_that_loses_a_name_has_one_link_fewer(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    additions = [NewFile(path="usr/bin/doas", mode=0o755, mtime=WHEN, content=b"another")]
    graft(an_image, additions=additions, removals=["etc/zero"], output=out)
    before, after = trees.tree(an_image), trees.tree(out)
    linked = bool(before.groups)
    assert after.groups == ({frozenset({"usr/bin/su", "usr/lib/su.link"})} if linked else set())
    assert after.facts == before.without("etc/zero").facts | facts(additions)
    with Image.open(out) as opened:
        su, link = opened.find("usr/bin/su"), opened.find("usr/lib/su.link")
        assert su
        assert link
        assert (su.links, link.links) == ((2, 2) if linked else (1, 1))
        assert (su.number == link.number) is linked
    trees.listing(out)


def test_all_names_of_a_hard_linked_file_can_go(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    gone = ["usr/bin/su", "usr/bin/doas", "usr/lib/su.link"]
    graft(an_image, additions=[], removals=gone, output=out)
    assert trees.tree(out) == trees.tree(an_image).without(*gone)


def test_removals_take_whole_trees_and_miss_nothing_that_is_not_there(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    report = graft(an_image, additions=[], removals=["etc", "/lib/systemd/system", "no/such", "nor-this"], output=out)
    assert trees.tree(out) == trees.tree(an_image).without("etc", "usr/lib/systemd/system")
    assert report.removed == ("etc", "/lib/systemd/system")
    trees.listing(out)


def test_a_directory_that_is_taken_out_and_added_again_is_empty(an_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.squashfs"
    additions = [
        NewDirectory(path="usr/bin", mode=0o700, mtime=WHEN),
        NewFile(path="usr/bin/only", mode=0o700, mtime=WHEN, content=b""),
    ]
    graft(an_image, additions=additions, removals=["usr/bin"], output=out)
    after = trees.tree(out)
    assert {path for path in after.facts if path.startswith("usr/bin")} == {"usr/bin", "usr/bin/only"}
    assert after.without("usr/bin") == trees.tree(an_image).without("usr/bin")


def test_the_same_graft_twice_gives_the_same_bytes(an_image: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    digest = hashlib.sha256()
    graft(an_image, additions=payload(tmp_path), output=first)
    graft(an_image, additions=payload(tmp_path)[::-1], output=second, listener=digest.update)
    assert first.read_bytes() == second.read_bytes()
    assert digest.hexdigest() == hashlib.sha256(second.read_bytes()).hexdigest()


def test_another_graft_replaces_the_former_one(an_image: Path, tmp_path: Path) -> None:
    once, twice, direct = tmp_path / "once", tmp_path / "twice", tmp_path / "direct"
    second = [NewFile(path="etc/other", mode=0o644, mtime=WHEN, content=b"other")]
    assert not graft(an_image, additions=payload(tmp_path), output=once).regrafted
    assert graft(once, additions=second, output=twice).regrafted
    graft(an_image, additions=second, output=direct)
    assert twice.read_bytes() == direct.read_bytes()


def test_pruning_gives_the_image_back_byte_for_byte(an_image: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    graft(an_image, additions=payload(tmp_path), removals=["tmp", "usr/bin/su"], output=out, mkfs_time=7)
    digest = hashlib.sha256()
    assert prune(out, output=back, listener=digest.update) == an_image.stat().st_size
    assert back.read_bytes() == an_image.read_bytes()
    assert digest.hexdigest() == hashlib.sha256(an_image.read_bytes()).hexdigest()


def test_an_image_inside_another_file_is_read_where_it_is(an_image: Path, tmp_path: Path) -> None:
    container = tmp_path / "container"
    container.write_bytes(b"\xff" * 12_345 + an_image.read_bytes() + b"\xff" * 999)
    with Image.open(an_image) as alone, Image.open(container, offset=12_345, size=an_image.stat().st_size) as inside:
        assert list(inside.walk()) == list(alone.walk())
        found = inside.find("/lib/../bin/doas")
        assert found == alone.find("/usr/bin/doas")


def test_an_image_inside_another_file_is_grafted_from_there(an_image: Path, tmp_path: Path) -> None:
    container, direct, out, back = (tmp_path / name for name in ("container", "direct", "out", "back"))
    size = an_image.stat().st_size
    container.write_bytes(b"\xff" * 12_345 + an_image.read_bytes() + b"\xff" * 999)
    additions = payload(tmp_path)
    graft(an_image, additions=additions, output=direct)
    for listener in (None, hashlib.sha256().update):
        graft(container, additions=additions, output=out, offset=12_345, size=size, listener=listener)
        assert out.read_bytes() == direct.read_bytes()
    container.write_bytes(b"\xff" * 77 + direct.read_bytes() + b"\xff" * 999)
    prune(container, output=back, offset=77, size=direct.stat().st_size)
    assert back.read_bytes() == an_image.read_bytes()


def test_a_graft_in_two_parts_is_the_graft_in_one(an_image: Path, tmp_path: Path) -> None:
    class Part:
        def __init__(self, position: int) -> None:
            self.position = position
            self.data = b""

        def put(self, data: bytes) -> int:
            self.data += data
            self.position += len(data)
            return self.position - len(data)

    graft(an_image, additions=payload(tmp_path), output=tmp_path / "out")
    with Image.open(an_image) as image:
        parts = Graft(image, additions=payload(tmp_path))
        part = Part(parts.start)
        head = parts.write(part)
    assert parts.start % 2048 == 0
    whole = head + an_image.read_bytes()[96:].ljust(parts.start - 96, b"\0") + part.data
    assert whole == (tmp_path / "out").read_bytes()


def test_names_that_go_twice_and_come_back_as_symlinks_are_counted_once(gzip_image: Path, tmp_path: Path) -> None:
    """A file with three names loses one, by two removals; the directory it was in becomes a link to another."""
    out = tmp_path / "out"
    additions = [NewSymlink(path="usr/bin", mode=0o777, mtime=WHEN, target="lib")]
    removals = ["usr/bin/su", "bin/doas", "usr/bin", "usr/bin/doas"]
    graft(gzip_image, additions=additions, removals=removals, output=out)
    after = trees.tree(out)
    assert after.facts == trees.tree(gzip_image).without("usr/bin").facts | facts(additions)
    assert not after.groups
    with Image.open(out) as image:
        alone = image.find("usr/lib/su.link")
        assert alone
        assert alone.links == 1
        assert image.find("usr/bin/su") is None


def test_the_export_table_leads_to_every_inode_by_its_number(image: Path, tmp_path: Path) -> None:
    """NFS handles are looked up in it; readers of files do not need it, so they would not notice an error."""
    out = tmp_path / "out"
    replaced = [NewFile(path="usr/bin/su", mode=0o755, mtime=WHEN, content=b"another")]
    graft(image, additions=[*payload(tmp_path), *replaced], removals=["tmp"], output=out)
    with Image.open(image) as old, Image.open(out) as new:
        if old.exports is None or new.exports is None:
            assert old.exports is new.exports
            return
        before, after = ([int.from_bytes(raw, "little") for raw in table] for table in (old.exports, new.exports))
        assert len(after) == new.superblock.inodes
        # mksquashfs 4.5 leaves entries of a tar's -no-hardlinks files to chance.
        wrong = {inode.number for _, inode in old.walk() if before[inode.number - 1] != inode.reference}
        for inode in (new.root, *(inode for _, inode in new.walk())):
            assert after[inode.number - 1] == inode.reference or inode.number in wrong
        # Those that nothing names any more are inodes, too, and none of them twice.
        assert len(set(after)) == len(after)
        assert all(new.inode(one) for number, one in enumerate(after, start=1) if number not in wrong)
