"""Other programs on the node that own files and folders below the roots: nothing of theirs is used or followed."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.archives import archive
from fakes.exchange import Exchange
from fakes.faults import Serve
from fakes.mounts import as_root, mounted
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.paths import PROTECTED

BODY = random.Random(61).randbytes(400_000)
FILES = {f"d{index % 7}/f{index}": random.Random(index).randbytes(3_000) for index in range(120)}
STRANGER = 4321
SWAP = """
import ctypes, os, sys
folder, outside = (os.fsencode(word) for word in sys.argv[1:])
os.symlink(outside, folder + b".link")
print("begun", flush=True)
while not ctypes.CDLL(None).renameat2(-100, folder, -100, folder + b".link", 2):  # RENAME_EXCHANGE: renameat2(2)
    pass
"""
# The staging directory is root's own; nobody but root can do this, and not even that leads outside.
SWAP_STAGING = """
import os, sys
tree, outside = sys.argv[1:]
print("begun", flush=True)
while True:
    for name in ("d1", "d2", "d3"):
        try:
            os.rename(f"{tree}/{name}", f"{tree}/{name}.real")
            os.symlink(outside, f"{tree}/{name}")
        except OSError:
            pass
"""

# New files are a stranger's (setfsuid(2)), which takes the power over others' files away: it is taken back (capset(2)).
SQUASHED = f"""\
import ctypes
libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
libc.setfsuid({STRANGER})
libc.capget(header, sets)
sets[0], sets[3] = sets[1], sets[4]
libc.capset(header, sets)
"""


ARCHIVE, PACKED = archive(FILES, is_gzipped=True), gzip.compress(BODY, 1)
BODIES = {"none": BODY, "tar": ARCHIVE, "decompress": PACKED}


def artifact(node: FakeNode, server: Server, extract: str, dest: Path) -> Entry:
    body = BODIES[extract]
    return {**node.entry("m", server.url(f"/{extract}"), body, extract=extract), "dest": str(dest)}


def is_right(dest: Path, extract: str) -> bool:
    if extract != "tar":
        return dest.read_bytes() == BODY
    return {str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()} == FILES


@contextmanager
def running(program: str, *words: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE)
    assert process.stdout
    try:
        assert process.stdout.readline() == b"begun\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def serving() -> Server:
    return Server({f"/{extract}": Script(body=body) for extract, body in BODIES.items()})


@pytest.mark.parametrize("extract", BODIES)
def test_nothing_gets_outside_while_a_folder_is_swapped_for_a_link_again_and_again(
    extract: str, node: FakeNode
) -> None:
    outside, folder = node.folder / "outside", node.out / "a/b"
    outside.mkdir()
    (outside / "c").mkdir()
    folder.mkdir(parents=True)
    with serving() as server:
        for number in range(25):
            with running(SWAP, folder, outside):
                ran = node.run_config(artifact(node, server, extract, folder / f"c/m{number}"))
            assert ran.code in {0, 73, 74, 77}, ran.err
            assert "Traceback" not in ran.err
            found = [*outside.rglob("*")]
            assert found == [outside / "c"], ran.err
            link = Path(f"{folder}.link")
            if folder.is_symlink():
                folder.unlink()
                link.rename(folder)
            else:
                link.unlink()
            if ran.code == 0:
                assert is_right(folder / f"c/m{number}", extract)
        ran = node.run_config(artifact(node, server, extract, folder / "c/last"))
        assert ran.code == 0, ran.err
        assert is_right(folder / "c/last", extract)


@as_root
def test_nothing_gets_outside_while_folders_of_an_archive_are_swapped_for_links(node: FakeNode) -> None:
    outside = node.folder / "outside"
    outside.mkdir()
    node.out.mkdir()
    with serving() as server, running(SWAP_STAGING, node.out / ".m.pxe-fetch-staging", outside):
        for _ in range(10):
            ran = node.run_config(artifact(node, server, "tar", node.out / "m"))
            assert ran.code in {0, 73, 74, 77}
            assert "Traceback" not in ran.err
            assert [*outside.iterdir()] == []


@as_root
@pytest.mark.parametrize("how", ["owned by another", "second link"])
def test_a_part_file_of_somebody_else_is_not_resumed_and_not_changed(how: str, node: FakeNode) -> None:
    node.out.mkdir()
    victim, part = node.folder / "victim", node.out / ".m.pxe-fetch-part"
    victim.write_bytes(BODY[:100_000])
    victim.chmod(0o606)
    if how == "second link":
        os.link(victim, part)
    else:
        part.write_bytes(BODY[:100_000])
        os.chown(part, STRANGER, STRANGER)
    with serving() as server, part.open("r+b") as held:
        entry = {**artifact(node, server, "none", node.out / "m"), "owner": "daemon", "mode": "0640"}
        ran = node.run_config(entry)
        assert [asked.range for asked in server.asked] == [None]
        held.write(b"written by who still has the former part file open")
    assert ran.code == 0
    assert (node.out / "m").read_bytes() == BODY
    assert stat.S_IMODE(victim.stat().st_mode) == 0o606
    assert victim.stat().st_uid == 0
    assert node.files() == ["m"]


@as_root
@pytest.mark.parametrize("how", ["owned by another", "second link"])
@pytest.mark.parametrize("extract", ["none", "decompress"])
def test_a_right_destination_of_somebody_else_is_replaced_and_not_changed(
    how: str, extract: str, node: FakeNode
) -> None:
    with serving() as server:
        entry = artifact(node, server, extract, node.out / "m")
        assert node.run_config(entry).code == 0
        (other := node.folder / "other").hardlink_to(node.out / "m")
        if how != "second link":
            os.chown(other, STRANGER, STRANGER)
        before = other.stat()
        ran = node.run_config({**entry, "owner": "daemon", "mode": "0600"})
        assert (ran.code, ran.artifact("m")["phase"]) == (0, "placed")
        assert (other.stat().st_uid, other.stat().st_mode) == (before.st_uid, before.st_mode)
        assert node.run_config({**entry, "owner": "daemon", "mode": "0600"}).artifact("m")["phase"] == "kept"
    assert (node.out / "m").read_bytes() == BODY


@as_root
@pytest.mark.parametrize(("extract", "record"), [("decompress", "content"), ("tar", "tree")])
def test_a_record_that_somebody_else_wrote_is_not_believed(extract: str, record: str, node: FakeNode) -> None:
    with serving() as server:
        entry = artifact(node, server, extract, node.out / "m")
        assert node.run_config(entry).code == 0
        assert node.run_config(entry).artifact("m")["phase"] == "kept"
        os.chown(node.out / f".m.pxe-fetch-{record}", STRANGER, STRANGER)
        assert node.run_config(entry).artifact("m")["phase"] == "placed"
        assert node.run_config(entry).artifact("m")["phase"] == "kept"


@as_root
@pytest.mark.parametrize("extract", BODIES)
def test_where_root_creates_files_of_another_owner_they_count_as_its_own(extract: str, node: FakeNode) -> None:
    """As on NFS with root_squash, or on vfat."""
    with serving() as server:
        config = node.folder / "fetch.yaml"
        config.write_text(node.config(artifact(node, server, extract, node.out / "m")))
        for phase in ("placed", "kept"):
            with node.start("run", "--config", str(config), before=SQUASHED) as process:
                _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert f"'phase': '{phase}'" in str(node.state()["artifacts"])
    assert (node.out / "m").stat().st_uid == STRANGER
    assert is_right(node.out / "m", extract)


def test_a_link_where_the_staging_directory_would_be_is_not_followed(node: FakeNode) -> None:
    outside = node.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    node.out.mkdir()
    for suffix in ("staging", "former", "tree"):
        (node.out / f".m.pxe-fetch-{suffix}").symlink_to(outside)
    with serving() as server:
        assert node.run_config(artifact(node, server, "tar", node.out / "m")).code == 0
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert is_right(node.out / "m", "tar")


@pytest.mark.parametrize("place", PROTECTED)
def test_places_of_the_system_are_no_destinations_whatever_the_roots_say(place: str, node: FakeNode) -> None:
    for dest in (f"{place}/x", f"{place}/x/${{machine_id}}", place):
        root = str(Path(place).parent)
        ran = node.run_config({**node.entry("m", "http://127.0.0.1:1/m", BODY), "dest": dest}, allowed_roots=[root])
        assert ran.code == 65
        assert "dest-protected" in ran.err
        assert f" dest: {dest}\n" in ran.err
        assert "^^^" in ran.err
    ran = node.run_config(
        {**node.entry("m", "http://127.0.0.1:1/m", BODY), "dest": f"{place}/x"}, allowed_roots=[place]
    )
    assert ran.code == 65
    assert "root-invalid" in ran.err


@as_root
def test_places_of_the_system_are_no_destinations_through_links_and_facts(node: FakeNode) -> None:
    node.out.mkdir()
    (node.out / "link").symlink_to("/run/systemd")
    (node.out / "run").symlink_to("/run")
    before = sorted(Path("/run").iterdir())
    with serving() as server:
        for dest in ("link/m", "run/systemd/x/m", "run/udev/rules.d/m.rules"):
            entry = artifact(node, server, "none", node.out / dest)
            ran = node.run_config(entry, allowed_roots=[str(node.out), "/run"])
            assert ran.code == 77
            assert "belongs to the system" in ran.out
        assert not server.asked
    assert sorted(Path("/run").iterdir()) == before


@as_root
@pytest.mark.parametrize("name", ["part", "staging", "tree", "content"])
@pytest.mark.parametrize("what", ["fifo", "folder", "link"])
@pytest.mark.parametrize("extract", BODIES)
def test_what_somebody_else_puts_under_the_agents_own_names_is_replaced(
    extract: str, what: str, name: str, node: FakeNode
) -> None:
    way, victim = node.out / f".m.pxe-fetch-{name}", node.folder / "victim"
    (victim / "sub").mkdir(parents=True)
    node.out.mkdir()
    match what:
        case "fifo":
            os.mkfifo(way)
        case "folder":
            (way / "sub/sub").mkdir(parents=True)
            (way / "sub/sub/x").write_text("x")
        case _:
            way.symlink_to(victim)
    os.chown(way, STRANGER, STRANGER, follow_symlinks=False)
    with serving() as server:
        assert node.run_config(artifact(node, server, extract, node.out / "m")).code == 0
        assert node.run_config(artifact(node, server, extract, node.out / "m")).artifact("m")["phase"] == "kept"
    assert is_right(node.out / "m", extract)
    assert (victim / "sub").is_dir()


@as_root
def test_a_place_of_the_system_that_is_mounted_elsewhere_is_no_destination(node: FakeNode) -> None:
    (again := node.out / "again").mkdir(parents=True)
    before = sorted(Path("/run/systemd").iterdir())
    subprocess.run(["mount", "--bind", "/run/systemd", str(again)], check=True)
    try:
        with serving() as server:
            for dest in (again / "m", again / "new/folder/m"):
                ran = node.run_config(artifact(node, server, "none", dest))
                assert ran.code == 77
                assert "belongs to the system" in ran.out
            assert not server.asked
        assert sorted(Path("/run/systemd").iterdir()) == before
    finally:
        subprocess.run(["umount", str(again)], check=True)


@as_root
@pytest.mark.parametrize(
    ("extract", "dest"),
    [
        ("none", "systemd/m"),
        ("none", "sudo"),
        ("none", "sudo/new/folder/m"),
        ("tar", "sudo"),
        ("tar", "systemd"),
        ("tar", "credstore.encrypted/deep"),
    ],
)
def test_a_place_of_the_system_in_a_folder_that_is_mounted_elsewhere_is_none_either(
    extract: str, dest: str, node: FakeNode
) -> None:
    (again := node.out / "again").mkdir(parents=True)
    assert "/run/sudo" in PROTECTED
    assert not Path("/run/sudo").exists()  # nothing of it is on this machine
    before = sorted(Path("/run").iterdir())
    subprocess.run(["mount", "--bind", "/run", str(again)], check=True)
    try:
        with serving() as server:
            ran = node.run_config(artifact(node, server, extract, again / dest))
            assert ran.code == 77
            assert "belongs to the system" in ran.out
            assert not server.asked
            assert node.run_config(artifact(node, server, extract, again / "pxe-pack-test")).code == 0
        (left,) = {*Path("/run").glob("*pxe-pack-test")}
        assert is_right(left, extract)
    finally:
        for left in Path("/run").glob("*pxe-pack-test*"):
            subprocess.run(["rm", "-rf", str(left)], check=True)
        subprocess.run(["umount", str(again)], check=True)
    assert sorted(Path("/run").iterdir()) == before


@as_root
def test_the_upper_directory_of_an_overlay_is_no_destination(node: FakeNode) -> None:
    """That of a live system's / would let an artifact replace any file, whatever the roots say."""
    memory = node.folder / "memory"
    with mounted(memory, "tmpfs", "size=8m"):
        lower, upper, work = (memory / name for name in ("lower", "upper", "work"))
        for folder in (lower, upper, work, node.out):
            folder.mkdir(exist_ok=True)
        (node.out / "link").symlink_to(upper)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        with mounted(node.folder / "merged", "overlay", options) as merged, serving() as server:
            for dest in (upper / "m", upper / "etc/m", node.out / "link/m"):
                ran = node.run_config(artifact(node, server, "none", dest), allowed_roots=[str(node.folder)])
                assert ran.code == 77
                assert "belongs to the system" in ran.out
            assert not server.asked
            assert [*merged.iterdir()] == []
            ran = node.run_config(artifact(node, server, "none", merged / "m"), allowed_roots=[str(node.folder)])
            assert ran.code == 0


@as_root
def test_a_tree_around_a_place_of_the_system_that_is_mounted_elsewhere_is_refused(node: FakeNode) -> None:
    (again := node.out / "again").mkdir(parents=True)
    subprocess.run(["mount", "--bind", "/", str(again)], check=True)
    try:
        with serving() as server:
            for dest in ("run", "var/lib", "var", "run/systemd/system/m"):
                ran = node.run_config(artifact(node, server, "tar", again / dest))
                assert ran.code == 77
                assert "belongs to the system" in ran.out
            assert not server.asked
    finally:
        subprocess.run(["umount", str(again)], check=True)


@pytest.mark.parametrize("name", [".m.pxe-fetch-part", ".m.pxe-fetch-tree", ".m.pxe-fetch-staging/x"])
def test_a_name_that_the_agent_uses_itself_is_no_destination(name: str, node: FakeNode) -> None:
    ran = node.run_config({**node.entry("m", "http://127.0.0.1:1/m", BODY), "dest": str(node.out / name)})
    assert (ran.code, "dest-protected" in ran.err) == (65, True)
    node.boot_with(f"name={name.partition('/')[0]}")
    dest = str(node.out / "${cmdline.name}")
    ran = node.run_config({**node.entry("m", "http://127.0.0.1:1/m", BODY), "dest": dest})
    assert ran.code == 77


def test_two_artifacts_with_one_place_behind_a_link_are_65(node: FakeNode) -> None:
    (node.out / "real").mkdir(parents=True)
    (node.out / "link").symlink_to("real")
    with serving() as server:
        first = artifact(node, server, "tar", node.out / "real/m")
        for dest in ("link/m", "link/m/x"):
            ran = node.run_config(first, {**artifact(node, server, "none", node.out / dest), "name": "n"})
            assert (ran.code, ran.state["cause"]) == (65, "dest-taken")
        assert not server.asked


@as_root
def test_a_tree_is_not_replaced_while_something_is_mounted_in_it(node: FakeNode) -> None:
    (inside := node.out / "m/data").mkdir(parents=True)
    with mounted(inside, "tmpfs", "size=1m"), serving() as server:
        (inside / "precious").write_text("x")
        ran = node.run_config(artifact(node, server, "tar", node.out / "m"))
        assert ran.code == 73
        assert f"{inside} is a mount point" in ran.out
        assert (inside / "precious").read_text() == "x"
    with serving() as server:
        assert node.run_config(artifact(node, server, "tar", node.out / "m")).code == 0
    assert is_right(node.out / "m", "tar")


@pytest.mark.parametrize("inner", ["none", "decompress", "tar"])
@pytest.mark.parametrize("is_tree_first", [True, False])
def test_no_configuration_deletes_what_another_one_has_installed(
    inner: str,
    is_tree_first: bool,  # noqa: FBT001
    node: FakeNode,
) -> None:
    outside, inside = node.out / "m", node.out / "m/deep/n"
    with serving() as server:
        tree = artifact(node, server, "tar", outside)
        other = {**artifact(node, server, inner, inside), "name": "n"}
        plain = {**artifact(node, server, "none", node.out / "plain"), "name": "p"}
        first, second = (tree, other) if is_tree_first else (other, tree)
        assert node.run_config(first).code == 0
        assert node.run_config(plain).code == 0  # the run in between makes nothing forgotten
        for _ in range(2):
            ran = node.run_config(second)
            assert (ran.code, ran.artifact(str(second["name"]))["cause"]) == (73, "cannot-create")
            assert f"where an earlier run has installed {first['name']}: choose another dest, or remove" in ran.err
        assert node.run_config(first).code == 0
        assert is_right(outside if is_tree_first else inside, "tar" if is_tree_first else inner)
        if is_tree_first:
            shutil.rmtree(outside)
        else:
            shutil.rmtree(inside) if inner == "tar" else inside.unlink()
        assert node.run_config(second).code == 0


@as_root
@pytest.mark.parametrize("extract", ["none", "decompress"])
def test_a_destination_that_something_is_mounted_at_is_named_as_such(extract: str, node: FakeNode) -> None:
    node.out.mkdir()
    (dest := node.out / "m").write_bytes(b"old")
    subprocess.run(["mount", "--bind", str(dest), str(dest)], check=True)
    try:
        with serving() as server:
            ran = node.run_config(artifact(node, server, extract, dest))
    finally:
        subprocess.run(["umount", str(dest)], check=True)
    assert ran.code == 73
    assert "something is mounted there: unmount it" in ran.err
    assert dest.read_bytes() == b"old"


@pytest.mark.parametrize("extract", ["none", "tar", "decompress"])
def test_a_folder_that_is_removed_during_the_run_is_made_again_by_the_next_run(extract: str, node: FakeNode) -> None:
    dest = node.out / "folder/deep/m"

    @dataclass(frozen=True)
    class Removing:
        def answer(self, exchange: Exchange) -> None:
            shutil.rmtree(node.out / "folder")
            Serve().answer(exchange)

    with Server({f"/{extract}": Script(body=BODIES[extract], faults=[Removing()])}) as server:
        ran = node.run_config(artifact(node, server, extract, dest))
        assert ran.code == 74  # the unit restarts on it
        assert "another program" in ran.err
        assert node.run_config(artifact(node, server, extract, dest)).code == 0
    assert is_right(dest, extract)


def test_an_artifact_inside_another_runs_tree_fails_alone(node: FakeNode) -> None:
    with serving() as server:
        assert node.run_config(artifact(node, server, "tar", node.out / "m")).code == 0
        other = {**artifact(node, server, "none", node.out / "m/n"), "name": "n", "required": False}
        plain = {**artifact(node, server, "none", node.out / "plain"), "name": "p"}
        ran = node.run_config(other, plain)
        assert (ran.code, ran.artifact("p")["phase"], ran.artifact("n")["phase"]) == (2, "placed", "failed")
        assert ran.state["earlier"] == [{"name": "m", "dest": str(node.out / "m")}]
