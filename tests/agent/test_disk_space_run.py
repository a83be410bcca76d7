"""Runs with less disk space than they need: known before the first byte where it can be, and clean where it cannot."""

from __future__ import annotations

import gzip
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest

from fakes.archives import archive
from fakes.exchange import Exchange
from fakes.faults import Serve
from fakes.mounts import as_root, mounted
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from fakes.transfers import cut
from pxe_fetch.install import disk_space

MiB = 1 << 20
BODY = random.Random(12).randbytes(3 * MiB)
SMALL = b"small\n"
CHUNK = 256 * 1024

pytestmark = as_root


@pytest.fixture
def full(node: FakeNode) -> Iterator[FakeNode]:
    """A node whose artifacts go to a file system of 4 MiB."""
    with mounted(node.out, "tmpfs", "size=4m"):
        yield node


@dataclass(frozen=True)
class Gate:
    """Sends the header and a little of the body; the rest when it is opened."""

    opened: Event = field(default_factory=Event)

    def answer(self, exchange: Exchange) -> None:
        content = exchange.content
        exchange.head(200, {"Content-Length": content.size})
        exchange.send_body(content.read(0, 1000), at=0)
        assert self.opened.wait(timeout=20)
        exchange.send_body(content.read(1000, content.size), at=1000)


@dataclass(frozen=True)
class Opens:
    """Serves, and opens a gate."""

    gate: Gate

    def answer(self, exchange: Exchange) -> None:
        self.gate.opened.set()
        Serve().answer(exchange)


def test_two_that_come_at_once_are_not_both_promised_the_same_room(full: FakeNode) -> None:
    gate = Gate()
    scripts = {"/a": Script(body=BODY, then=gate), "/b": Script(body=BODY, then=gate)}
    with Server(scripts | {"/c": Script(body=SMALL, then=Opens(gate))}) as server:
        both = [full.entry(name, server.url(f"/{name}"), BODY, required=False) for name in ("a", "b")]
        ran = full.run_config(*both, full.entry("c", server.url("/c"), SMALL), parallel=2)
    assert ran.code == 2, ran.err
    (placed,) = [name for name in ("a", "b") if ran.artifact(name)["phase"] == "placed"]
    missing = ran.artifact("b" if placed == "a" else "a")
    assert (missing["cause"], missing["bytes"], missing["attempts"]) == ("no-room", 0, 2)
    assert full.files() == [placed, "c"]
    assert "not enough " in str(missing["error"])
    assert "besides" in str(missing["error"])


def test_declared_sizes_are_added_up_before_anybody_is_asked(full: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        needed, extra = (full.entry(name, server.url("/m"), BODY, size=len(BODY)) for name in ("m", "extra"))
        ran = full.run_config({**extra, "required": False}, needed)
        assert len(server.asked) == 1
        assert ran.code == 2
        assert full.files() == ["m"]
        (full.out / "m").unlink()
        ran = full.run_config(extra, needed)
        assert len(server.asked) == 1
    assert ran.code == 79
    assert "3.00 MiB needed" in ran.out
    assert full.files() == []


def test_optional_artifact_that_waits_stands_back_behind_a_required_one(full: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        needed = full.entry("m", server.url("/m"), BODY)  # how much it is, only the server says
        extra = full.entry("extra", server.url("/m"), BODY, size=len(BODY), required=False)
        ran = full.run_config(needed, extra, parallel=1)
    assert ran.code == 2, ran.err
    assert full.files() == ["m"]
    assert ran.artifact("extra")["cause"] == "no-room"


def test_what_an_earlier_run_has_brought_needs_no_room_again(full: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[Serve(until=2 * MiB)] * 2)}) as server:
        entry = full.entry("m", server.url("/m"), BODY, size=len(BODY), retry={"attempts_without_progress": 1})
        assert full.run_config(entry).code == 69
        assert full.run_config(entry).code == 0  # 2 MiB are free, and 1 is missing
        assert server.sent("/m") == len(BODY)
    assert full.files() == ["m"]


@dataclass(frozen=True)
class Fills:
    """Sends the first bytes of the body, then takes all the room on the node's file system, and breaks off."""

    folder: Path

    def answer(self, exchange: Exchange) -> None:
        Serve(until=100_000).answer(exchange)
        with (self.folder / "others").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        exchange.keep = False


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_disk_that_fills_on_the_way_ends_with_79_and_without_a_part(full: FakeNode, framing: str) -> None:
    scripts = {
        "/m": Script(body=BODY, faults=[Fills(full.out)], then=Serve(framing=framing)),
        "/s": Script(body=SMALL),
    }
    with Server(scripts) as server:
        ran = full.run_config(full.entry("m", server.url("/m"), BODY))
        assert ran.code == 79, ran.err
        assert full.files() == ["others"]
        assert "not enough " in ran.out or "no room for" in ran.out  # as found by looking, or by writing
        (full.out / "others").unlink()
        assert full.run_config(full.entry("m", server.url("/m"), BODY)).code == 0
    assert full.files() == ["m"]


def test_disk_that_fills_while_chunks_come_in_parallel_ends_alike(full: FakeNode) -> None:
    digests = cut(BODY, chunk=CHUNK).digests
    listed = [digests[at : at + 32].hex() for at in range(0, len(digests), 32)]
    with Server({"/m": Script(body=BODY, faults=[Fills(full.out)])}) as server:
        entry = full.entry("m", server.url("/m"), BODY, size=len(BODY), chunks={"size": CHUNK, "sha256": listed})
        ran = full.run_config(entry)
    assert ran.code == 79, ran.err
    assert full.files() == ["others"]


def test_more_than_there_is_of_a_body_without_a_length_ends_with_79(full: FakeNode) -> None:
    body = BODY + BODY
    with Server({"/m": Script(body=body, then=Serve(framing="chunked"))}) as server:
        ran = full.run_config(full.entry("m", server.url("/m"), body))
        assert len(server.asked) == 1  # no mirror makes room
    assert ran.code == 79
    assert full.files() == []


def test_memory_counts_where_files_lie_in_it(full: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space, "memory_available", lambda: disk_space.OWN_MEMORY + 2 * MiB)
    with Server({"/m": Script(body=BODY)}) as server:
        entry: Entry = full.entry("m", server.url("/m"), BODY)
        ran = full.run_config(entry)
        assert ran.code == 79
        assert "not enough memory in " in ran.out
        assert "2.00 MiB available" in ran.out
        assert full.run_config({**entry, "size": len(BODY)}).code == 79
        assert len(server.asked) == 2  # what it claims once it may not claim again


def test_overlay_and_the_file_system_below_it_have_one_room(node: FakeNode) -> None:
    """As on a live system, whose root is an overlay on what /run has."""
    node.out.mkdir()
    with mounted(node.out / "run", "tmpfs", "size=4m") as below:
        lower, upper, work = node.folder / "lower", below / "upper", below / "work"
        for folder in (lower, upper, work):
            folder.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        with mounted(node.out / "root", "overlay", options), Server({"/m": Script(body=BODY)}) as server:
            one = {**node.entry("one", server.url("/m"), BODY, size=len(BODY)), "dest": str(node.out / "root/m")}
            two = {**node.entry("two", server.url("/m"), BODY, size=len(BODY)), "dest": str(below / "m")}
            ran = node.run_config(one, {**two, "required": False})
            assert ran.code == 2, ran.err
            assert "not enough memory in " in str(ran.artifact("two")["error"])
            assert " needed, 1" in str(ran.artifact("two")["error"])
            assert len(server.asked) == 1


def test_the_message_names_the_file_system_its_size_and_how_to_enlarge_it(full: FakeNode) -> None:
    with Server({"/m": Script(body=BODY + BODY)}) as server:
        for size in ({}, {"size": 2 * len(BODY)}):
            ran = full.run_config(full.entry("m", server.url("/m"), BODY + BODY, **size))
            assert ran.code == 79
            assert f"{full.out} (tmpfs) has 4.00 MiB of 4.00 MiB free" in ran.out
            (needed,) = re.findall(rf"`mount -o remount,size=(\d+)M {full.out}`", ran.out)
            subprocess.run(["mount", "-o", f"remount,size={needed}M", str(full.out)], check=True)
            assert full.run_config(full.entry("m", server.url("/m"), BODY + BODY, **size)).code == 0
            (full.out / "m").unlink()
            subprocess.run(["mount", "-o", "remount,size=4M", str(full.out)], check=True)


def test_a_folder_mounted_onto_itself_is_part_of_the_file_system_around_it(full: FakeNode) -> None:
    """As systemd does for ReadWritePaths= and ReadOnlyPaths= of the unit: nobody else on the node sees that mount."""
    inner = full.out / "inner"
    inner.mkdir()
    subprocess.run(["mount", "--bind", str(inner), str(inner)], check=True)
    try:
        with Server({"/m": Script(body=BODY + BODY)}) as server:
            entry = {**full.entry("m", server.url("/m"), BODY + BODY, size=2 * len(BODY)), "dest": str(inner / "m")}
            ran = full.run_config(entry)
        assert ran.code == 79
        assert re.search(rf"`mount -o remount,size=\d+M {full.out}`", ran.out), ran.out
    finally:
        subprocess.run(["umount", str(inner)], check=True)


@pytest.mark.parametrize("extract", ["none", "tar", "decompress"])
def test_a_full_disk_found_by_writing_is_told_in_the_same_way(extract: str, full: FakeNode) -> None:
    content = BODY + BODY
    body = {"none": content, "tar": archive({"a": content}), "decompress": gzip.compress(bytes(8 * MiB))}[extract]
    with Server({"/m": Script(body=body, then=Serve(framing="chunked"))}) as server:
        ran = full.run_config(full.entry("m", server.url("/m"), body, extract=extract))
    assert ran.code == 79
    assert f"{full.out} (tmpfs) has " in ran.out
    assert "remount,size=" in ran.out
    assert full.files() == []


@pytest.mark.parametrize("number", [100, 5_000])
def test_inodes_that_run_out_are_named_as_such(number: int, node: FakeNode) -> None:
    body = archive({f"d/{index}": b"" for index in range(number)})
    with mounted(node.out, "tmpfs", "size=64m,nr_inodes=1000"), Server({"/m": Script(body=body)}) as server:
        entry = node.entry("m", server.url("/m"), body, extract="tar")
        ran = node.run_config(entry)
        if number < 1000:
            assert ran.code == 0
            return
        assert ran.code == 79
        assert "inodes free (`df -i`)" in ran.out
        (needed,) = re.findall(rf"`mount -o remount,nr_inodes=(\d+) {node.out}`", ran.out)
        assert node.files() == []
        subprocess.run(["mount", "-o", f"remount,nr_inodes={4 * int(needed)}", str(node.out)], check=True)
        assert node.run_config(entry).code == 0


def test_no_inode_left_for_the_part_file_is_named_as_such(node: FakeNode) -> None:
    with mounted(node.out, "tmpfs", "size=64m,nr_inodes=1"), Server({"/m": Script(body=SMALL)}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), SMALL))
    assert ran.code == 79
    assert "0 of 1 inodes free (`df -i`)" in ran.out
