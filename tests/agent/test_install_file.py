"""Files put in place: modes, owners, links, and what stands there already."""

from __future__ import annotations

import errno
import grp
import gzip
import io
import os
import pwd
import random
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from fakes.mounts import mounted
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.filesystem import translate_error

BODY = random.Random(1).randbytes(200_000)
SMALL = b"small\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to others and mounting take root")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_places_artifacts_with_the_default_mode(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY), "/s": Script(body=SMALL)}) as server:
        ran = node.run_config(
            node.entry("m.bin", server.url("/m"), BODY), node.entry("deep/er/s", server.url("/s"), SMALL, name="s")
        )
    assert ran.code == 0
    assert (node.out / "m.bin").read_bytes() == BODY
    assert (node.out / "deep/er/s").read_bytes() == SMALL
    assert mode_of(node.out / "m.bin") == 0o644
    assert mode_of(node.out / "deep") == 0o755
    assert node.files() == ["deep/er/s", "m.bin"]
    assert ran.out.startswith("pxe-fetch: done: 2 artifacts in place")


def test_tight_umask_changes_no_mode(node: FakeNode) -> None:
    before = os.umask(0o077)
    try:
        with Server({"/m": Script(body=BODY)}) as server:
            ran = node.run_config(node.entry("a/m", server.url("/m"), BODY, name="m", mode="0664"))
    finally:
        os.umask(before)
    assert ran.code == 0
    assert mode_of(node.out / "a/m") == 0o664
    assert mode_of(node.out / "a") == 0o755
    assert mode_of(node.state_file) == 0o644


@as_root
def test_gives_owner_group_and_mode(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, owner="daemon", group="adm", mode="0750"),
            node.entry("n", server.url("/m"), BODY, owner="12345"),
        )
    assert ran.code == 0
    status = (node.out / "m").stat()
    assert (status.st_uid, status.st_gid) == (pwd.getpwnam("daemon").pw_uid, grp.getgrnam("adm").gr_gid)
    assert mode_of(node.out / "m") == 0o750
    assert (node.out / "n").stat().st_uid == 12345


@pytest.mark.parametrize(("key", "who"), [("owner", "no-such-user"), ("group", "no-such-group")])
def test_unknown_account_is_73_before_anything_is_fetched(node: FakeNode, key: str, who: str) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, **{key: who}))
        assert not server.asked
    assert ran.code == 73
    assert who in ran.out
    assert ran.state["cause"] == "cannot-create"


def test_optional_artifact_for_an_unknown_user_degrades_the_run(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, owner="no-such-user", required=False),
            node.entry("n", server.url("/m"), BODY),
        )
    assert ran.code == 2
    assert node.files() == ["n"]
    assert ran.artifact("m")["cause"] == "cannot-create"


def test_destination_that_is_a_directory_is_73(node: FakeNode) -> None:
    (node.out / "m/inside").mkdir(parents=True)
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert ran.code == 73
    assert (node.out / "m/inside").is_dir()


def test_destination_below_a_file_is_73(node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / "file").write_text("x")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, dest=str(node.out / "file/m")))
    assert ran.code == 73


def test_link_out_of_the_roots_is_refused(node: FakeNode) -> None:
    node.out.mkdir()
    (node.folder / "elsewhere").mkdir()
    (node.out / "link").symlink_to(node.folder / "elsewhere")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, dest=str(node.out / "link/sub/m")))
        assert not server.asked
    assert ran.code == 77
    assert list((node.folder / "elsewhere").iterdir()) == []


def test_link_inside_the_roots_is_followed(node: FakeNode) -> None:
    (node.out / "real").mkdir(parents=True)
    (node.out / "link").symlink_to("real")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, dest=str(node.out / "link/m")))
    assert ran.code == 0
    assert (node.out / "real/m").read_bytes() == BODY


def test_link_at_the_destination_is_replaced_not_followed(node: FakeNode) -> None:
    node.out.mkdir()
    (node.folder / "victim").write_text("untouched")
    (node.out / "m").symlink_to(node.folder / "victim")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert ran.code == 0
    assert not (node.out / "m").is_symlink()
    assert (node.out / "m").read_bytes() == BODY
    assert (node.folder / "victim").read_text() == "untouched"


def test_what_is_right_already_is_kept_and_not_asked_for(node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / "m").write_bytes(BODY)
    (node.out / "m").chmod(0o600)
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, mode="0640"))
        assert not server.asked
    assert ran.code == 0
    assert ran.artifact("m")["phase"] == "kept"
    assert mode_of(node.out / "m") == 0o640
    assert "1 artifact in place (1 already)" in ran.out


@as_root
@pytest.mark.parametrize("extract", ["none", "tar", "decompress"])
def test_what_is_right_in_a_read_only_place_is_kept_and_what_is_not_is_73(node: FakeNode, extract: str) -> None:
    body = {"none": BODY, "tar": _archive(), "decompress": gzip.compress(BODY)}[extract]
    with mounted(node.out, "tmpfs", "size=1M"), Server({"/m": Script(body=body)}) as server:
        entry = node.entry("m", server.url("/m"), body, extract=extract)
        assert node.run_config(entry).code == 0
        subprocess.run(["mount", "-o", "remount,ro", str(node.out)], check=True)
        ran = node.run_config(entry)
        assert (ran.code, ran.artifact("m")["phase"]) == (0, "kept")
        ran = node.run_config(node.entry("n", server.url("/m"), body, extract=extract))
    assert ran.code == 73
    assert "Read-only file system" in ran.out


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    return out.getvalue()


def test_what_is_wrong_is_replaced(node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / "m").write_bytes(BODY[:-1] + b"?")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY))
    assert ran.code == 0
    assert (node.out / "m").read_bytes() == BODY


@pytest.mark.parametrize(
    ("dest", "said"),
    [
        ("${cmdline.name}x", "File name too long"),
        ("${cmdline.name}x/m", "File name too long"),
        ("${cmdline.name}/" * 20, "a path has at most 4095"),
    ],
)
def test_name_that_is_too_long_by_a_fact_is_73(node: FakeNode, dest: str, said: str) -> None:
    node.boot_with(f"name={'x' * 255}")
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(
            node.entry("m", server.url("/m"), BODY, dest=str(node.out / dest), size=len(BODY)),
            node.entry("n", server.url("/m"), BODY),
        )
    assert ran.code == 73
    assert said in ran.out
    assert (node.out / "n").read_bytes() == BODY


def test_name_that_leaves_no_room_for_the_part_files_ending_is_placed(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), BODY, dest=str(node.out / ("x" * 250))))
    assert ran.code == 0
    assert node.files() == ["x" * 250]


def test_a_root_that_is_a_link_itself_leads_where_it_led_at_the_start(node: FakeNode) -> None:
    (node.folder / "disk").mkdir()
    node.out.symlink_to(node.folder / "disk")
    (node.folder / "disk/private").mkdir()
    (node.folder / "disk/app").symlink_to("private")  # as systemd makes it for DynamicUser=
    with Server({"/m": Script(body=BODY)}) as server:
        for dest in ("new/m", "app/m"):
            ran = node.run_config(node.entry("m", server.url("/m"), BODY, dest=str(node.out / dest)))
            assert ran.code == 0, ran.err
    assert (node.folder / "disk/new/m").read_bytes() == (node.folder / "disk/private/m").read_bytes() == BODY


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, 79, "free"),
        (errno.EDQUOT, 79, "has no quota left on"),
        (errno.EFBIG, 79, "`ulimit -f` allows no file of this size"),
        (errno.EIO, 74, "fails; see `dmesg`"),
        (errno.EROFS, 73, "ReadWritePaths="),
        (errno.EACCES, 73, "the unit's sandbox forbids it"),
        (errno.ENAMETOOLONG, 73, "a name has at most 255 bytes"),
    ],
)
def test_an_error_of_the_file_system_comes_with_its_remedy(number: int, code: int, said: str, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number))
    found = translate_error(error, "cannot install /x", where=tmp_path / "missing")
    assert found.exit_code == code
    assert str(found).startswith(f"cannot install /x: {os.strerror(number)} (")
    assert said in str(found)
