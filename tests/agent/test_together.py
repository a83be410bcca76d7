"""Thousands of small files, brought by several processes: as if it were one, whatever happens to the others."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.nginx import Nginx, nginx
from fakes.node import Entry, FakeNode
from fakes.waiting import until

NUMBER = 400
# Three processes, as soon as may be, on whatever machine.
TOGETHER = """\
import os
from pxe_fetch import bring, workers
from pxe_fetch.errors import NoRoomError
from pxe_fetch.place.room import Room
from pxe_fetch.together import Member
os.sched_getaffinity = lambda _: {0, 1, 2}
bring.MANY, workers.QUICK, workers.STEP = 20, 60.0, 0.001
first = os.getpid()
"""
KILLED = """
work = Member.work
def until_killed(self, order, following):
    if len(self.begun) == 30 and os.getpid() != first:
        os.kill(os.getpid(), 9)
    work(self, order, following)
Member.work = until_killed
"""
CROWDED = """
claim = Room.claim
def crowded(self, name, size):
    if os.getpid() != first:
        raise NoRoomError("there is no room for it")
    claim(self, name, size)
Room.claim = crowded
"""
SLOW = """
import time
workers.STEP = 0.3  # one of them ends within it
work = Member.work
def slowly(self, order, following):
    time.sleep(0.1)
    work(self, order, following)
Member.work = slowly
"""
ALONE = """
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = fork
"""


@pytest.fixture(scope="module")
def bodies() -> dict[str, bytes]:
    return {f"f{number:03}": random.Random(number).randbytes(20_000) for number in range(NUMBER)}


@pytest.fixture
def server(tmp_path: Path, bodies: dict[str, bytes]) -> Iterator[Nginx]:
    root = tmp_path / "served"
    root.mkdir()
    for name, body in bodies.items():
        (root / name).write_bytes(body)
    with nginx(tmp_path / "nginx", root=root) as running:
        yield running


def config(node: FakeNode, *entries: Entry) -> str:
    file = node.write("fetch.yaml", node.config(*entries, parallel=3))
    return str(file)


def entries(node: FakeNode, server: Nginx, bodies: dict[str, bytes]) -> list[Entry]:
    return [node.entry(name, server.url(f"/{name}"), body) for name, body in bodies.items()]


def run(node: FakeNode, file: str, *, before: str = TOGETHER) -> tuple[int, str]:
    """The exit code and the story."""
    running = node.start("run", "--config", file, before=before)
    _, story = running.communicate(timeout=60)
    return running.returncode, story


def all_are_right(node: FakeNode, bodies: dict[str, bytes]) -> bool:
    return {file.name: file.read_bytes() for file in node.out.iterdir()} == bodies


def left_running(node: FakeNode) -> list[str]:
    """Processes that have the node's folder on their command line."""
    found = subprocess.run(["pgrep", "-f", "--", str(node.root)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def placed(node: FakeNode) -> int:
    return len(list(node.out.glob("f???"))) if node.out.exists() else 0


def test_each_file_is_asked_for_once_and_told_of_as_by_one_process(
    node: FakeNode, server: Nginx, bodies: dict[str, bytes]
) -> None:
    code, story = run(node, config(node, *entries(node, server, bodies)))
    assert code == 0, story
    assert all_are_right(node, bodies)
    asked = server.asked()
    assert sorted(path for *_, path, _, _, _ in asked) == [f"/{name}" for name in bodies]
    assert len({connection for connection, *_ in asked}) > 2, "one process has two"
    state = node.state()
    assert state["message"].startswith(f"{NUMBER} artifacts in place, 7.63 MiB received")  # type: ignore[attr-defined]
    for artifact in state["artifacts"]:  # type: ignore[attr-defined]
        assert (artifact["phase"], artifact["attempts"], artifact["bytes_received"]) == ("placed", 1, 20_000)
        assert artifact["url"] == server.url(f"/{artifact['name']}")
    told = re.findall(r"(f\d{3}): placed at ", story)
    assert sorted(told) == [*bodies]


def test_files_that_are_not_to_be_had_fail_as_by_one_process(
    node: FakeNode, server: Nginx, bodies: dict[str, bytes]
) -> None:
    missing = [name for name in bodies if name.endswith("7")]
    retry = {"attempts_without_progress": 2, "base": "1ms"}
    listed = [
        node.entry(name, server.url(f"/{'no/' if name in missing else ''}{name}"), body, required=False, retry=retry)
        for name, body in bodies.items()
    ]
    code, story = run(node, config(node, *listed))
    assert code == 2, story
    assert all_are_right(node, {name: body for name, body in bodies.items() if name not in missing})
    assert sorted(re.findall(r"(f\d{3}): failed: ", story)) == missing
    state = json.loads(node.state_file.read_text())
    assert f"without {len(missing)} optional artifacts: {missing[0]}: " in state["message"]
    for artifact in state["artifacts"]:
        is_missing = artifact["name"] in missing
        assert artifact["phase"] == ("failed" if is_missing else "placed")
        assert artifact["cause"] == ("not-found" if is_missing else None)
        assert artifact["attempts"] == (2 if is_missing else 1)


@pytest.mark.parametrize("happens", [KILLED, CROWDED, ALONE], ids=["killed", "crowded", "alone"])
def test_what_the_others_do_not_bring_the_first_does(
    node: FakeNode, server: Nginx, bodies: dict[str, bytes], happens: str
) -> None:
    code, story = run(node, config(node, *entries(node, server, bodies)), before=TOGETHER + happens)
    assert code == 0, story
    assert all_are_right(node, bodies)
    phases = [artifact["phase"] for artifact in node.state()["artifacts"]]  # type: ignore[attr-defined]
    # What a member had placed before it was killed is found to be right.
    assert phases.count("placed") + phases.count("kept") == NUMBER
    assert happens == KILLED or phases.count("kept") == 0
    assert "Traceback" not in story
    assert " failed" not in story


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)], ids=["term", "kill"])
def test_nobody_goes_on_when_the_first_is_ended_and_the_next_run_finishes(
    node: FakeNode, server: Nginx, bodies: dict[str, bytes], sign: int, code: int
) -> None:
    file = config(node, *entries(node, server, bodies))
    running = node.start("run", "--config", file, before=TOGETHER + SLOW)
    until(lambda: placed(node) > 30 and len(left_running(node)) == 3)
    running.send_signal(sign)
    until(lambda: not left_running(node), within=7)  # what is left would take them longer
    _, story = running.communicate(timeout=20)
    assert running.returncode == code, story
    assert "Traceback" not in story
    assert 30 < placed(node) < NUMBER
    if sign == signal.SIGTERM:
        phases = [artifact["phase"] for artifact in node.state()["artifacts"]]  # type: ignore[attr-defined]
        assert phases.count("placed") == placed(node)  # what the others had done by then was told
    code, story = run(node, config(node, *entries(node, server, bodies)))
    assert code == 0, story
    assert all_are_right(node, bodies)
