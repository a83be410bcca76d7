"""Random trees with random changes, against a model that is a dict."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager.squashfs import trees
from packager.squashfs.images import Member, directory, mksquashfs, tar2sqfs
from packager.squashfs.payload import facts, ours
from pxe_pack.squashfs import Addition, NewDirectory, NewFile, NewSymlink, graft, prune

LETTERS = st.characters(codec="utf-8", exclude_characters="/\0", min_codepoint=33)
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name not in {".", ".."})
MODES = st.integers(0, 0o7777)
IDS = st.sampled_from([0, 1, 1000, 65_536, 2**32 - 2])
TIMES = st.integers(0, 2**32 - 1)
XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "trusted.c", "security.selinux"]),
    st.text("xyz", min_size=1, max_size=300).map(str.encode),
    max_size=2,
)
CONTENT = st.one_of(
    st.binary(max_size=50),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 3000)).map(lambda pair: pair[0] * pair[1]),
    st.integers(0, 5).map(lambda blocks: bytes(4096 * blocks)),
)
OPTIONS = st.lists(
    st.sampled_from(
        ["-no-fragments", "-noI", "-noD", "-noF", "-noX", "-no-exports", "-always-use-fragments", "-no-sparse"]
    ),
    unique=True,
)


@st.composite
def paths(draw: st.DrawFn, most: int) -> list[tuple[str, bool]]:
    """Distinct paths, directories before their content, each with whether it is a directory."""
    found: list[tuple[str, bool]] = []
    taken: set[str] = set()
    folders = [""]
    for _ in range(draw(st.integers(0, most))):
        path = draw(st.sampled_from(folders)) + draw(NAMES)
        if path in taken:
            continue
        taken.add(path)
        folder = draw(st.booleans())
        found.append((path, folder))
        if folder:
            folders.append(path + "/")
    return found


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    made: list[Member] = []
    for path, folder in draw(paths(25)):
        if folder:
            member = directory(path, draw(MODES), uid=draw(IDS), gid=draw(IDS), xattrs=draw(XATTRS))
        else:
            files = [one.path for one in made if one.type == b"0"]
            kind = draw(st.sampled_from([b"0", b"0", b"0", b"2", b"3", b"6", *([b"1"] if files else [])]))
            member = Member(path=path, type=kind, mode=draw(MODES), uid=draw(IDS), gid=draw(IDS), mtime=draw(TIMES))
            if kind == b"0":
                member.data = draw(CONTENT)
                member.xattrs = draw(XATTRS)
            elif kind == b"1":
                member.link = draw(st.sampled_from(files))
            elif kind == b"2":
                member.link, member.mode = draw(NAMES), 0o777
            elif kind == b"3":
                member.device = draw(st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)))
        made.append(member)
    return made


@st.composite
def changes(draw: st.DrawFn, there: list[Member]) -> tuple[list[Addition], list[str]]:
    """Additions and removals that are valid for a tree with the paths `there`."""
    gone = draw(st.lists(st.sampled_from([one.path for one in there]), unique=True, max_size=3)) if there else []

    def stays(path: str) -> bool:
        return not any(path == one or path.startswith(one + "/") for one in gone)

    folders = ["", *(one.path + "/" for one in there if one.type == b"5" and stays(one.path))]
    taken = {one.path: one.type for one in there if stays(one.path)}
    # A name that goes may be given to something else.
    regained = [path for path in gone if "/" not in path or stays(path.rpartition("/")[0])]
    made: list[Addition] = []
    for _ in range(draw(st.integers(0, 12))):
        reused = [path for path, kind in taken.items() if kind not in {b"5", b"new"}]
        path = draw(st.sampled_from(folders)) + draw(NAMES)
        path = draw(st.sampled_from([path, *reused[:5], *regained]))
        if taken.get(path) in {b"5", b"new"}:
            continue
        kinds = [NewFile, NewSymlink] if path in taken else [NewFile, NewSymlink, NewDirectory]
        kind: type[Addition] = draw(st.sampled_from(kinds))
        uid, gid, xattrs = draw(IDS), draw(IDS), draw(XATTRS)
        made.append(replace(_blank(kind, draw), path=path, mtime=draw(TIMES), uid=uid, gid=gid, xattrs=xattrs))
        if kind is NewDirectory:
            folders.append(path + "/")
        taken[path] = b"new"
    return made, gone


def _blank(kind: type[Addition], draw: st.DrawFn) -> Addition:
    if kind is NewDirectory:
        return NewDirectory(path="", mode=draw(MODES), mtime=0)
    if kind is NewSymlink:
        return NewSymlink(path="", mode=0o777, mtime=0, target=draw(NAMES))
    return NewFile(path="", mode=draw(MODES), mtime=0, content=draw(CONTENT))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_random_graft_makes_the_tree_that_the_model_says(data: st.DataObject) -> None:
    there = data.draw(members())
    additions, removals = data.draw(changes(there))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if data.draw(st.booleans()):
            image = tar2sqfs(folder / "image", there, "-c", "gzip", "-b", "4096")
        else:
            image = mksquashfs(folder / "image", there, "-b", "4K", *data.draw(OPTIONS))
        before = trees.tree(image)
        assert ours(image) == before

        out, again, back = folder / "out", folder / "again", folder / "back"
        graft(image, additions=additions, removals=removals, output=out)
        after = trees.tree(out)
        new = facts(additions)
        model = before.without(*removals)
        assert after.facts == model.facts | new
        assert after.groups == model.without(*(path for path in new if path in model.facts)).groups
        assert ours(out) == after
        trees.listing(out)

        graft(out, additions=additions, removals=removals, output=again)
        assert again.read_bytes() == out.read_bytes()
        prune(out, output=back)
        assert back.read_bytes() == image.read_bytes()
