"""Files that are on the node already."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

from fakes.server import Script, Server
from fakes.transfers import Bench
from pxe_fetch.errors import IntegrityError, NotFoundError, PolicyError, RefusedError

BODY = random.Random(7).randbytes(9_000_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "a file.bin"
    file.write_bytes(BODY)
    return file


def test_reads_a_file(source: Path, tmp_path: Path) -> None:
    received = Bench(body=BODY, folder=tmp_path / "to", urls=[source.as_uri()]).download()
    assert received.bytes_received == len(BODY)
    assert "%20" in source.as_uri()


def test_a_name_is_the_bytes_that_the_url_encodes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xe9.bin")).write_bytes(BODY)
    Bench(body=BODY, folder=tmp_path / "to", urls=[f"file://{tmp_path}/%FF%e9.bin"]).download()


def test_resumes_within_a_file(source: Path, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[f"file://localhost{source.as_uri()[7:]}"])
    bench.part.write_bytes(BODY[:1000])
    assert bench.download().bytes_received == len(BODY) - 1000


def test_a_share_that_is_not_mounted_yet_is_waited_for(source: Path, tmp_path: Path) -> None:
    away = source.rename(tmp_path / "away")
    bench = Bench(body=BODY, folder=tmp_path, urls=[source.as_uri()])
    bench.clock.during = lambda number: away.rename(source) if number == 1 else None  # type: ignore[assignment]
    assert bench.download().attempts == 3


def test_a_mirror_may_be_a_file_and_another_a_server(source: Path, tmp_path: Path) -> None:
    source.write_bytes(BODY[:-1] + b"\0")
    with Server({"/m": Script(body=BODY)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[source.as_uri(), server.url("/m")])
        assert bench.download().url == server.url("/m")


def test_a_file_with_other_bytes_is_an_integrity_error(source: Path, tmp_path: Path) -> None:
    source.write_bytes(BODY[:-1] + b"\0")
    with pytest.raises(IntegrityError):
        Bench(body=BODY, folder=tmp_path, urls=[source.as_uri()]).download()


def test_a_missing_file_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        Bench(body=BODY, folder=tmp_path, urls=[(tmp_path / "absent").as_uri()]).download()


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket"])
def test_what_is_not_a_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    thing = tmp_path / kind
    if kind == "folder":
        thing.mkdir()
    elif kind == "fifo":
        os.mkfifo(thing)
    elif kind == "device":
        thing.symlink_to("/dev/zero")
    else:
        socket.socket(socket.AF_UNIX).bind(str(thing))
    with pytest.raises(RefusedError, match="not a regular file"):
        Bench(body=BODY, folder=tmp_path, urls=[thing.as_uri()]).download()


@pytest.mark.parametrize("url", ["file://fileserver/m", "file:m", "file:", "file:///a%00b"])
def test_a_file_url_names_a_file_of_this_node(url: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        Bench(body=BODY, folder=tmp_path, urls=[url]).download()
