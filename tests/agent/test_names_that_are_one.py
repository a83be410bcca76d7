"""Two names that are one file, since a file system ignores case or is mounted twice: not both are reported placed."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import archive
from fakes.mounts import as_root, ignoring_case, that_ignore_case
from fakes.node import FakeNode
from fakes.server import Script, Server

BODIES = {name: random.Random(name).randbytes(300_000) for name in ("first", "second")}


@pytest.fixture
def folded(node: FakeNode) -> Iterator[Path]:
    with ignoring_case(node.out / "disk") as disk:
        yield disk


def run_both(
    node: FakeNode, dests: tuple[Path, Path], *, parallel: int, bodies: dict[str, bytes], **others: str
) -> str:
    """Two artifacts, one of which fails; the name of the one that is in place, and right."""
    with Server({f"/{name}": Script(body=body) for name, body in bodies.items()}) as server:
        entries = [
            {**node.entry(name, server.url(f"/{name}"), body, **others), "dest": str(dest)}
            for (name, body), dest in zip(bodies.items(), dests, strict=True)
        ]
        ran = node.run_config(*entries, parallel=parallel)
    assert ran.code == 73
    phases = {name: ran.artifact(name)["phase"] for name in bodies}
    assert sorted(map(str, phases.values())) in (["failed", "kept"], ["failed", "placed"])
    assert "are one file" in ran.err
    return next(name for name, phase in phases.items() if phase != "failed")


@that_ignore_case
@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("names", [("M", "m"), ("d/m", "D/m"), ("d/M", "D/m")])
def test_two_artifacts_whose_names_differ_in_case_are_not_both_placed(
    names: tuple[str, str], parallel: int, node: FakeNode, folded: Path
) -> None:
    for _ in range(2):
        right = run_both(node, (folded / names[0], folded / names[1]), parallel=parallel, bodies=BODIES)
        assert (folded / names[0]).read_bytes() == BODIES[right]


@that_ignore_case
@pytest.mark.parametrize("parallel", [1, 2])
def test_two_trees_whose_names_differ_in_case_are_not_both_placed(parallel: int, node: FakeNode, folded: Path) -> None:
    bodies = {name: archive({"f": body}) for name, body in BODIES.items()}
    right = run_both(node, (folded / "T", folded / "t"), parallel=parallel, bodies=bodies, extract="tar")
    assert (folded / "t/f").read_bytes() == BODIES[right]


@as_root
@pytest.mark.parametrize("parallel", [1, 2])
def test_two_artifacts_below_two_mounts_of_one_folder_are_not_both_placed(parallel: int, node: FakeNode) -> None:
    (first := node.out / "first").mkdir(parents=True)
    (second := node.out / "second").mkdir()
    subprocess.run(["mount", "--bind", str(first), str(second)], check=True)
    try:
        right = run_both(node, (first / "m", second / "m"), parallel=parallel, bodies=BODIES)
        assert (first / "m").read_bytes() == BODIES[right]
    finally:
        subprocess.run(["umount", str(second)], check=True)


@that_ignore_case
@pytest.mark.parametrize(
    "names", [("A", "a"), ("d/A", "d/a"), ("d/x", "D/y"), ("d/deep/x", "d/Deep/y"), ("a", "b/c", "A"), ("A/x", "a")]
)
def test_members_whose_names_differ_in_case_alone_are_refused(
    names: tuple[str, ...], node: FakeNode, folded: Path
) -> None:
    body = archive({name: name.encode() for name in names})
    with Server({"/t": Script(body=body)}) as server:
        entry = {**node.entry("tree", server.url("/t"), body, extract="tar"), "dest": str(folded / "t")}
        ran = node.run_config(entry)
        assert ran.code == 73
        assert "in another spelling, which are one file" in ran.err
        assert not (folded / "t").exists()
        assert node.run_config({**entry, "dest": str(node.out / "t")}).code == 0  # which distinguishes them


@that_ignore_case
def test_a_member_that_comes_twice_is_unpacked_where_case_is_ignored_too(node: FakeNode, folded: Path) -> None:
    names = ("Folder/A", "Folder/B", "b/C", "Folder/D")
    one = archive(dict.fromkeys(names, b"x"))
    body = one[: len(names) * 1024] + archive({name: name.encode() for name in names})
    with Server({"/t": Script(body=body)}) as server:
        entry = {**node.entry("tree", server.url("/t"), body, extract="tar"), "dest": str(folded / "t")}
        assert node.run_config(entry).code == 0
    assert [(folded / "t" / name).read_bytes() for name in names] == [name.encode() for name in names]
