"""Two runs on one node, with one destination: what is there in the end is whole, whichever run came first."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.archives import archive
from fakes.faults import stall
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.commands import Exit

MEMBERS = {f"f{index:03}": random.Random(index).randbytes(5_000) for index in range(300)}
ONE = random.Random(51).randbytes(3_000_000)
OTHER = random.Random(52).randbytes(3_000_000)
ROUNDS = 3


def start(node: FakeNode, name: str, entry: Entry) -> subprocess.Popen[str]:
    file = node.folder / f"{name}.yaml"
    file.write_text(node.config(entry))
    return node.start("run", "--config", str(file))


def check_all(*processes: subprocess.Popen[str]) -> None:
    """Each run succeeds: one waits for the other, or finds nothing to do."""
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == Exit.DONE, err


def tree(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2])
def test_one_archive_is_unpacked_whole(delay: float, node: FakeNode) -> None:
    packed = archive(MEMBERS)
    with Server({"/m": Script(body=packed)}) as server:
        entry = node.entry("m", server.url("/m"), packed, extract="tar")
        for number in range(ROUNDS):
            entry = {**entry, "dest": str(node.out / f"m{number}")}
            first = start(node, "first", entry)
            time.sleep(delay)
            check_all(first, start(node, "second", entry))
            assert tree(node.out / f"m{number}") == MEMBERS
            assert start(node, "third", entry).wait(timeout=60) == Exit.DONE
            assert tree(node.out / f"m{number}") == MEMBERS


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2])
def test_two_configurations_with_one_destination_leave_what_one_of_them_names(delay: float, node: FakeNode) -> None:
    with Server({"/one": Script(body=ONE), "/other": Script(body=OTHER)}) as server:
        entries = [node.entry("m", server.url("/one"), ONE), node.entry("m", server.url("/other"), OTHER)]
        for number in range(ROUNDS):
            first = start(node, "first", entries[number % 2])
            time.sleep(delay)
            check_all(first, start(node, "second", entries[1 - number % 2]))
            assert (node.out / "m").read_bytes() in (ONE, OTHER)
            assert node.files() == ["m"]


def test_a_run_waits_for_another_one_and_says_so_and_goes_on_where_that_was_ended(node: FakeNode) -> None:
    with Server({"/m": Script(body=ONE, faults=[stall(0.5)])}) as server:
        entry = node.entry("m", server.url("/m"), ONE)
        stuck = start(node, "stuck", entry)
        part = node.out / ".m.pxe-fetch-part"
        while not part.exists() or not part.stat().st_size:
            assert stuck.poll() is None
            time.sleep(0.01)
        second = start(node, "second", entry)
        assert second.stderr
        while "waiting for another run" not in second.stderr.readline():
            assert second.poll() is None
        stuck.kill()
        stuck.communicate(timeout=60)
        left = part.stat().st_size
        check_all(second)
        assert [asked.range for asked in server.asked] == [None, f"bytes={left}-"]
    assert (node.out / "m").read_bytes() == ONE
    assert node.files() == ["m"]


def test_a_run_that_waits_for_another_one_in_vain_is_started_again_by_systemd(node: FakeNode) -> None:
    with Server({"/m": Script(body=ONE, faults=[stall(0.5)])}) as server:
        entry = node.entry("m", server.url("/m"), ONE)
        stuck = start(node, "stuck", entry)
        part = node.out / ".m.pxe-fetch-part"
        while not part.exists() or not part.stat().st_size:
            assert stuck.poll() is None
            time.sleep(0.01)
        stuck.send_signal(signal.SIGSTOP)
        second = start(node, "second", {**entry, "retry": {"deadline": "1s"}})
        out, err = second.communicate(timeout=60)
        assert second.returncode == Exit.DEADLINE, err
        assert f"{part} is still being written by another run of pxe-fetch" in out
        stuck.kill()
        stuck.communicate(timeout=60)
