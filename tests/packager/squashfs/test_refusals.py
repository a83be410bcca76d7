"""Impossible grafts are refused before anything is written, and leave nothing behind."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from packager.squashfs.images import KINDS, Member, mksquashfs
from packager.squashfs.payload import WHEN, payload
from pxe_pack.squashfs import Addition, Image, NewDirectory, NewFile, NewSymlink, SquashfsError, graft, prune
from pxe_pack.tools import WorkError


def refused(image: Path, folder: Path, additions: Sequence[Addition] = (), removals: Sequence[str] = ()) -> list[str]:
    """The problems for which a graft is refused; it must leave nothing in `folder`."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(SquashfsError) as caught:
        graft(image, additions=additions, removals=removals, output=folder / "out")
    assert not list(folder.iterdir())
    return [str(problem) for problem in caught.value.problems]


def file(path: str, content: bytes | Path = b"", **others: int) -> NewFile:
    return NewFile(path=path, content=content, **{"mode": 0o644, "mtime": WHEN} | others)  # type: ignore[arg-type]


def test_all_conflicts_with_the_image_are_told_at_once(gzip_image: Path, tmp_path: Path) -> None:
    additions = [
        file("no/where/file"),
        file("etc"),
        NewDirectory(path="etc/passwd", mode=0o755, mtime=WHEN),
        NewSymlink(path="usr/lib", mode=0o777, mtime=WHEN, target="lib64"),
        file("etc/passwd/below"),
        file("etc/twice"),
        file("lib/twice"),
        file("/etc//twice"),
        file("usr/lib/twice"),
    ]
    problems = refused(gzip_image, tmp_path / "out", additions, ["usr/../etc", "/"])
    assert len(problems) == 9
    assert all("[graft-conflict]" in problem for problem in problems)


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        (file("../up"), "must be a path below"),
        (file("a/../../up"), "must be a path below"),
        (file(""), "must be a path below"),
        (file("/"), "must be a path below"),
        (file("a\0b"), "must be a path below"),
        (file("n" * 256), "exceeds 255 bytes"),
        (file("d/" * 2100 + "f"), "or 4095 bytes in total"),
        (file("f", mode=0o100644), "more than permission bits"),
        (file("f", uid=1 << 32), "32 bits"),
        (file("f", gid=(1 << 32) - 1), "32 bits"),
        (file("f", mtime=-1), "32 bits"),
        (file("f", Path("/no/such/file")), "not a readable file"),
        (file("f", Path("/etc")), "not a readable file"),
        (file("f", Path("/dev/null")), "not a readable file"),
        (NewSymlink(path="l", mode=0o777, mtime=1, target=""), "target of 0"),
        (NewSymlink(path="l", mode=0o777, mtime=1, target="t" * 4096), "target of 4096"),
        (NewFile(path="f", mode=0, mtime=1, content=b"", xattrs={"system.posix_acl_access": b""}), "begin with user."),
        (NewFile(path="f", mode=0, mtime=1, content=b"", xattrs={"user.": b""}), "begin with user."),
        (NewFile(path="f", mode=0, mtime=1, content=b"", xattrs={"user.x": bytes(65_537)}), "longer than the kernel"),
    ],
)
def test_what_no_squashfs_can_hold_is_refused(gzip_image: Path, tmp_path: Path, addition: Addition, said: str) -> None:
    (problem,) = refused(gzip_image, tmp_path / "out", [addition])
    assert said in problem
    assert "[graft-addition]" in problem


def test_a_symlink_loop_in_the_image_is_no_endless_one_here(tmp_path: Path) -> None:
    loop = [
        Member(path="one", type=b"2", mode=0o777, link="two/x"),
        Member(path="two", type=b"2", mode=0o777, link="/one"),
    ]
    looped = mksquashfs(tmp_path / "looped", loop)
    with Image.open(looped) as image, pytest.raises(SquashfsError, match="more than 40 symlinks"):
        image.find("one/file")
    assert "more than 40" in refused(looped, tmp_path / "out", [file("one/file")])[0]


def test_the_source_is_never_the_output(gzip_image: Path, tmp_path: Path) -> None:
    copy, link = tmp_path / "copy", tmp_path / "link"
    copy.write_bytes(gzip_image.read_bytes())
    link.hardlink_to(copy)
    for output in (copy, link):
        with pytest.raises(SquashfsError, match="output-is-input"):
            graft(copy, additions=payload(tmp_path), output=output)
        with pytest.raises(SquashfsError, match="output-is-input"):
            prune(copy, output=output)
    assert copy.read_bytes() == gzip_image.read_bytes()


def test_pruning_what_has_no_graft_is_refused(gzip_image: Path, tmp_path: Path) -> None:
    with pytest.raises(SquashfsError, match="graft-none"):
        prune(gzip_image, output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["zstd", "lz4", "lzo"])
def test_a_missing_compressor_is_named_with_its_package(
    kind: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images / f"missing-{kind}"
    KINDS[kind](image)
    # What an import of a module that is not installed finds.
    for module in ("compression.zstd", "backports.zstd", "lz4.block", "lzallright"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SquashfsError) as caught:
        graft(image, additions=payload(tmp_path), output=tmp_path / "out")
    (problem,) = caught.value.problems
    assert problem.reference == "squashfs-compressor-missing"
    package = {"zstd": "backports.zstd", "lz4": "lz4", "lzo": "lzallright"}[kind]
    assert kind in problem.message
    assert problem.hint == f"pip install {package}"


def test_a_full_disk_leaves_nothing_behind(gzip_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "image").write_bytes(b"former")
    additions = payload(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (gzip_image.stat().st_size + 9_999, hard))
    try:
        with pytest.raises(WorkError, match="output-failed"):
            graft(gzip_image, additions=additions, output=out / "image")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in out.iterdir()] == ["image"]
    assert (out / "image").read_bytes() == b"former"


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_graft_leaves_nothing_behind(gzip_image: Path, tmp_path: Path, end: type[BaseException]) -> None:
    def interrupt(_: memoryview) -> None:
        raise end

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(end):
        graft(gzip_image, additions=payload(tmp_path), output=out / "image", listener=interrupt)
    assert not list(out.iterdir())


def test_an_output_that_may_not_be_written_is_said(gzip_image: Path) -> None:
    with pytest.raises(WorkError, match="output-failed"):
        graft(gzip_image, additions=[], output=Path("/proc/image"))  # where not even root makes files


def test_an_output_folder_that_is_not_there_is_said(gzip_image: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="No such file or directory"):
        graft(gzip_image, additions=[], output=tmp_path / "no" / "image")
