"""Our own side: what cannot be created, a disk that is full, and what the part looks like."""

from __future__ import annotations

import os
import random
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.faults import stall
from fakes.server import Script, Server
from fakes.transfers import QUICK, Bench
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import RetryPolicy
from pxe_fetch.errors import CannotCreateError, NetworkError

BODY = random.Random(8).randbytes(2_000_000)
RECEIVE = """
import sys, pathlib
from fakes.transfers import Bench
from pxe_fetch.errors import FetchError
try:
    Bench(body=pathlib.Path(sys.argv[2]).read_bytes(), folder=pathlib.Path(sys.argv[3]), urls=[sys.argv[1]]).download()
except FetchError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_is_told_so_and_leaves_nothing(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "to"
    source.write_bytes(BODY)
    with Server({"/m": Script(body=BODY)}) as server:
        done = subprocess.run(
            [sys.executable, "-c", RECEIVE, server.url("/m"), str(source), str(folder)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
            # A limit on the size of files fails a write as a full disk does, without a file system of our own.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == Exit.NO_ROOM, done.stderr
        assert "there is no room for" in done.stdout
        assert list(folder.iterdir()) == []
        assert len(server.asked) == 1  # no mirror makes room


def test_the_part_is_for_its_owner_alone_and_missing_folders_are_made(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        bench = Bench(body=BODY, folder=tmp_path / "a" / "b", urls=[server.url("/m")])
        bench.download()
    assert stat.S_IMODE(bench.part.stat().st_mode) == 0o600


def test_the_part_stays_when_the_network_fails(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=stall(0.5))}) as server:
        retry = RetryPolicy(attempts_without_progress=2)
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=retry, timeouts=QUICK)
        with pytest.raises(NetworkError):
            bench.download()
    assert bench.part.read_bytes() == BODY[: len(BODY) // 2]


@pytest.mark.parametrize("way", ["folder-for-part", "link-for-part", "fifo-for-part"])
def test_what_is_in_the_way_is_told_and_left_alone(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "to"
    bench = Bench(body=BODY, folder=folder, urls=["http://127.0.0.1:1/m"])
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    folder.mkdir()
    match way:
        case "folder-for-part":
            bench.part.mkdir()
        case "link-for-part":
            bench.part.symlink_to(target)
        case _:
            os.mkfifo(bench.part)
    with pytest.raises(CannotCreateError) as caught:
        bench.download()
    assert caught.value.exit_code == Exit.CANNOT_CREATE
    assert str(folder) in str(caught.value)
    assert target.read_bytes() == b"precious"
