"""Archives put in place as trees: whole or not at all, and never anything outside."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pwd
import random
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.node import FakeNode, Ran
from fakes.server import Script, Server
from pxe_fetch.contract.tar import TarReader
from pxe_fetch.errors import PolicyError
from pxe_fetch.install import tree
from pxe_fetch.install.unpack import Unpacker

Compression = Literal["w:", "w:gz", "w:bz2", "w:xz"]
Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, body: bytes = b"content\n", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(body), mode
    return info, body


def other(name: str, kind: bytes, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info, b""


def folder(name: str) -> Member:
    return other(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Member:
    return other(name, tarfile.SYMTYPE, target)


def hardlink(name: str, target: str) -> Member:
    return other(name, tarfile.LNKTYPE, target)


def archive(*members: Member, compression: Compression = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=compression) as tar:
        for info, body in members:
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def run_with(node: FakeNode, body: bytes, **others: object) -> Ran:
    with Server({"/t": Script(body=body)}) as server:
        return node.run_config(node.entry("tree", server.url("/t"), body, extract="tar", **others))


@pytest.mark.parametrize("compression", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_files_folders_and_links(node: FakeNode, compression: Compression) -> None:
    big = random.Random(1).randbytes(300_000)
    body = archive(
        folder("bin"),
        file("bin/run", b"#!/bin/sh\n", 0o755),
        file("lib/deep/data", big),
        symlink("bin/also", "run"),
        symlink("lib/up", "../bin/run"),
        symlink("lib/here", "."),
        hardlink("lib/same", "lib/deep/data"),
        compression=compression,
    )
    ran = run_with(node, body)
    tree = node.out / "tree"
    assert ran.code == 0
    assert (tree / "lib/deep/data").read_bytes() == big
    assert (tree / "lib/same").stat().st_ino == (tree / "lib/deep/data").stat().st_ino
    assert (tree / "bin/also").read_bytes() == (tree / "lib/up").read_bytes() == b"#!/bin/sh\n"
    assert (tree / "lib/here").samefile(tree / "lib")
    assert os.access(tree / "bin/run", os.X_OK)
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert sorted(path.name for path in node.out.iterdir()) == [".tree.pxe-fetch-tree", "tree"]


def test_unpacks_what_zstd_compressed(node: FakeNode) -> None:
    plain = archive(file("a"), symlink("l", "a"), hardlink("h", "a"), compression="w:")
    body = subprocess.run(["zstd", "-q"], input=plain, capture_output=True, check=True).stdout
    assert run_with(node, body).code == 0
    assert (node.out / "tree/l").read_bytes() == (node.out / "tree/h").read_bytes() == b"content\n"


@pytest.mark.parametrize("compression", ["w:gz", "w:bz2", "w:xz"])
def test_archive_that_is_cut_off_is_refused_and_the_former_tree_stays(node: FakeNode, compression: Compression) -> None:
    assert run_with(node, archive(file("former"))).code == 0
    body = archive(file("a", random.Random(1).randbytes(100_000)), compression=compression)
    ran = run_with(node, body[: len(body) // 2])
    assert ran.code == 77
    assert node.files() == [".tree.pxe-fetch-tree", "tree/former"]


def test_set_id_bits_of_the_archive_are_dropped(node: FakeNode) -> None:
    assert run_with(node, archive(file("a", mode=0o6777))).code == 0
    assert stat.S_IMODE((node.out / "tree/a").stat().st_mode) == 0o755


def test_private_folder_of_the_archive_stays_private(node: FakeNode) -> None:
    members = [folder("keys"), file("keys/key", mode=0o600), folder("open"), folder("sealed"), file("sealed/f")]
    for (info, _), mode in zip(members, (0o700, 0o600, 0o2777, 0o500, 0o644), strict=True):
        info.mode = mode
    assert run_with(node, archive(*members)).code == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (node.out / "tree").iterdir()}
    assert modes == {"keys": 0o700, "open": 0o755, "sealed": 0o700}


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to others takes root")
def test_owner_is_that_of_every_member_and_mode_that_of_the_folder(node: FakeNode) -> None:
    body = archive(folder("d"), file("d/f"), symlink("d/l", "f"))
    assert run_with(node, body, owner="daemon", mode="0710").code == 0
    daemon = pwd.getpwnam("daemon").pw_uid
    assert {path.lstat().st_uid for path in (node.out / "tree").rglob("*")} == {daemon}
    assert (node.out / "tree").stat().st_uid == daemon
    assert stat.S_IMODE((node.out / "tree").stat().st_mode) == 0o710


def test_replaces_the_former_tree_as_a_whole(node: FakeNode) -> None:
    assert run_with(node, archive(file("old"), file("both", b"1"))).code == 0
    assert run_with(node, archive(file("new"), file("both", b"2"))).code == 0
    tree = node.out / "tree"
    assert sorted(path.name for path in tree.iterdir()) == ["both", "new"]
    assert (tree / "both").read_bytes() == b"2"
    assert sorted(path.name for path in node.out.iterdir()) == [".tree.pxe-fetch-tree", "tree"]


def test_tree_that_is_right_is_kept_and_one_that_was_touched_is_made_anew(node: FakeNode) -> None:
    body = archive(file("a"), file("d/b"))
    assert run_with(node, body).artifact("tree")["phase"] == "placed"
    assert run_with(node, body).artifact("tree")["phase"] == "kept"
    (node.out / "tree/d/b").write_text("touched")
    assert run_with(node, body).artifact("tree")["phase"] == "placed"
    (node.out / "tree/a").unlink()
    assert run_with(node, body).artifact("tree")["phase"] == "placed"
    assert (node.out / "tree/a").read_bytes() == (node.out / "tree/d/b").read_bytes() == b"content\n"


def test_there_is_no_moment_without_a_tree_while_it_is_replaced(node: FakeNode) -> None:
    assert run_with(node, archive(file("old"))).code == 0
    missing: list[bool] = []
    over = Event()

    def watch() -> None:
        while not over.is_set():
            missing.append(not (node.out / "tree").exists())

    watching = Thread(target=watch)
    watching.start()
    try:
        for number in range(20):
            assert run_with(node, archive(file("new", b"%d" % number))).code == 0
    finally:
        over.set()
        watching.join()
    assert missing
    assert not any(missing)
    assert (node.out / "tree/new").read_bytes() == b"19"


def test_tree_is_replaced_where_nothing_can_be_exchanged(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(node, archive(file("old"))).code == 0
    monkeypatch.setattr(tree, "_ctypes", None)  # as in a Python that was built without libffi
    assert run_with(node, archive(file("new"))).code == 0
    assert node.files() == [".tree.pxe-fetch-tree", "tree/new"]


def test_former_tree_that_a_killed_run_left_is_cleared_away_when_all_is_right(node: FakeNode) -> None:
    body = archive(file("a"))
    assert run_with(node, body).code == 0
    (node.out / ".tree.pxe-fetch-staging").mkdir()
    (node.out / ".tree.pxe-fetch-staging/old").write_text("x")
    assert run_with(node, body).artifact("tree")["phase"] == "kept"
    assert node.files() == [".tree.pxe-fetch-tree", "tree/a"]


def test_what_a_killed_run_left_is_cleared_away(node: FakeNode) -> None:
    staging = node.out / ".tree.pxe-fetch-staging"
    (staging / "half").mkdir(parents=True)
    assert run_with(node, archive(file("a"))).code == 0
    assert not staging.exists()
    assert not (node.out / "tree/half").exists()


def test_file_at_the_destination_is_73_and_stays(node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / "tree").write_text("a file")
    assert run_with(node, archive(file("a"))).code == 73
    assert (node.out / "tree").read_text() == "a file"


BAD: dict[str, Sequence[Member]] = {
    "absolute name": [file("/etc/passwd")],
    "name that climbs": [file("a/../../x")],
    "absolute link": [symlink("l", "/etc/passwd")],
    "link that climbs": [symlink("d/l", "../../x")],
    "link that climbs by way of another": [folder("a/b"), symlink("a/b/l", "../.."), symlink("a/m", "b/l/..")],
    "member through a link": [folder("d"), symlink("l", "d"), file("l/x")],
    "folder where a link is": [folder("d"), symlink("l", "d"), folder("l")],
    "file where a folder is": [folder("d"), file("d")],
    "hard link to the outside": [hardlink("h", "../../etc/passwd")],
    "hard link to nothing": [hardlink("h", "missing")],
    "hard link to a link": [file("f"), symlink("l", "f"), hardlink("h", "l")],
    "device": [other("null", tarfile.CHRTYPE)],
    "pipe": [other("pipe", tarfile.FIFOTYPE)],
    "the tree itself a link": [symlink(".", "/etc")],
}


@pytest.mark.parametrize("what", BAD)
def test_refuses_what_could_lead_outside(node: FakeNode, what: str) -> None:
    (node.out / "tree").mkdir(parents=True)
    (node.out / "tree/former").write_text("still here")
    ran = run_with(node, archive(file("fine"), *BAD[what]))
    assert ran.code == 77
    assert ran.state["cause"] == "policy"
    assert sorted(path.name for path in (node.out / "tree").iterdir()) == ["former"]
    assert node.files() == ["tree/former"]


def test_not_an_archive_is_refused_in_a_sentence(node: FakeNode) -> None:
    ran = run_with(node, b"this is no archive" * 100)
    assert ran.code == 77
    assert "not a complete tar archive" in ran.out
    truncated = archive(file("a", b"x" * 100_000), compression="w:")[:50_000]
    assert run_with(node, truncated).code == 77
    assert not (node.out / "tree").exists()


def test_archive_that_is_larger_than_the_room_is_79(node: FakeNode) -> None:
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    header = info.tobuf(tarfile.GNU_FORMAT)
    assert run_with(node, header + b"\0" * 10_240).code == 79
    assert not (node.out / "tree").exists()


def test_disk_that_is_full_mid_way_is_79_with_nothing_left(node: FakeNode) -> None:
    body = archive(file("small"), file("large", b"\0" * 3_000_000))
    with Server({"/t": Script(body=body)}) as server:
        assert node.run_on_full_disk(node.entry("tree", server.url("/t"), body, extract="tar")) == 79
    assert node.files() == []


def test_a_file_that_tar_archived_twice_is_unpacked_once(node: FakeNode) -> None:
    ran = run_with(node, archive(file("a", b"once"), hardlink("a", "a")))
    assert ran.code == 0
    assert (node.out / "tree/a").read_bytes() == b"once"
    ran = run_with(node, archive(hardlink("a", "a")))
    assert ran.code == 77
    assert "the hard link 'a' refers to 'a', which is not a file unpacked before it" in ran.out


def test_a_tree_deeper_than_the_limit_is_refused_and_leaves_nothing(node: FakeNode) -> None:
    for depth in (257, 1200):
        ran = run_with(node, archive(file("f"), file("d/" * depth + "f")))
        assert ran.code == 77
        assert "the limit is 256" in ran.out
        assert node.files() == []
    assert run_with(node, archive(file("d/" * 255 + "f"))).code == 0


def test_a_path_longer_than_any_program_can_name_is_refused_and_leaves_nothing(node: FakeNode) -> None:
    longest = 4095 - len(f"{node.out}/.tree.pxe-fetch-staging/")
    for length, code in ((longest, 0), (longest + 1, 77), (200 * 250, 77)):
        name = "/".join(["n" * 249] * (length // 250) + ["n" * (length % 250)]).removesuffix("/")[:length]
        packed = archive(file("f"), file(name))
        ran = run_with(node, packed)
        assert ran.code == code, ran.out
        if code:
            assert f"a path of more than {longest} bytes" in ran.out
        else:
            assert (node.out / "tree" / name).read_bytes() == b"content\n"
            assert run_with(node, packed).artifact("tree")["phase"] == "kept"


def test_names_from_an_archive_are_shown_without_control_characters(node: FakeNode) -> None:
    ran = run_with(node, archive(file("../\x1b[31m\x07\x9b")))
    assert ran.code == 77
    assert "\x1b" not in ran.out + ran.err + str(ran.state)


names = st.lists(st.sampled_from(["a", "b", "..", ".", ""]), min_size=1, max_size=4).map("/".join)
members = st.one_of(
    st.builds(file, names),
    st.builds(folder, names),
    st.builds(symlink, names, names),
    st.builds(hardlink, names, names),
    st.builds(other, names, st.sampled_from([tarfile.CHRTYPE, tarfile.FIFOTYPE])),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members, max_size=8))
def test_no_archive_makes_a_path_that_leads_outside(
    tmp_path_factory: pytest.TempPathFactory, all_: list[Member]
) -> None:
    place = tmp_path_factory.mktemp("climb")
    (place / "secret").write_text("outside")
    staging = place / "x/y"
    staging.mkdir(parents=True)
    inside = os.path.realpath(staging)
    tar, opened = TarReader(io.BytesIO(archive(*all_, compression="w:"))), os.open(staging, os.O_RDONLY)
    with Unpacker(opened, uid=None, gid=None, check=lambda: None) as unpacker:
        for member in tar:
            with contextlib.suppress(PolicyError):  # a run stops here; going on makes more of it
                unpacker.add(tar, member)
    os.close(opened)
    found = [Path(parent, name) for parent, folders, files in os.walk(staging) for name in (*folders, *files)]
    for path in found:
        try:
            path.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                continue  # leads nowhere
        real = os.path.realpath(path)
        assert real == inside or real.startswith(inside + "/")
    assert sorted(path.name for path in place.iterdir()) == ["secret", "x"]
    assert (place / "secret").read_text() == "outside"


def test_a_former_tree_of_any_depth_is_replaced(node: FakeNode) -> None:
    node.out.mkdir()
    opened = os.open(node.out, os.O_RDONLY)
    for name in ["tree", *["d"] * 2000]:
        os.mkdir(name, dir_fd=opened)
        below = os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    os.close(opened)
    body = archive(file("a"))
    try:
        for phase in ("placed", "kept", "kept"):
            ran = run_with(node, body)
            assert (ran.code, ran.artifact("tree")["phase"]) == (0, phase), ran.err
        assert node.files() == [".tree.pxe-fetch-tree", "tree/a"]
        assert sorted(path.name for path in node.out.iterdir()) == [".tree.pxe-fetch-tree", "tree"]
    finally:
        subprocess.run(["rm", "-rf", str(node.out)], check=True)
