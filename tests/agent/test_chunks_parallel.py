"""Artifacts with chunk digests: ranges in parallel, over mirrors, each chunk verified as it lands."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from threading import Event

import pytest

from fakes.exchange import Fault
from fakes.faults import Flip, Hang, Serve, Status, cut, reset, stall
from fakes.server import Script, Server
from fakes.transfers import Bench
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.errors import IntegrityError, NetworkError, RefusedError

CHUNK = 64 * 1024
BODY = random.Random(11).randbytes(40 * CHUNK + 12345)


def bench(folder: Path, *servers: Server, **more: object) -> Bench:
    urls = [server.url("/m") for server in servers]
    return Bench(body=BODY, folder=folder, urls=urls, chunk=CHUNK, **more)  # type: ignore[arg-type]


def test_ranges_come_in_parallel_and_none_twice(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        received = bench(tmp_path, server).download()
        assert server.sent("/m") == len(BODY)
        assert len({asked.connection for asked in server.asked}) > 1
        assert len(server.asked) <= 8
    assert (received.attempts, received.bytes_received, received.url) == (1, len(BODY), server.url("/m"))


@pytest.mark.parametrize("streams", [1, 2, 3, 8])
def test_any_number_of_streams_brings_the_same(streams: int, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        assert bench(tmp_path, server, streams=streams).download().bytes_received == len(BODY)
        assert len({asked.connection for asked in server.asked}) <= streams
        if streams == 1:
            assert len(server.asked) == 1


@pytest.mark.parametrize(
    "fault", [cut(0.5), reset(0.5), cut(CHUNK + 1), Status(503), Status(404), Flip(), stall(0.7)], ids=repr
)
def test_one_fault_costs_no_more_than_a_chunk(fault: Fault, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[fault])}) as server:
        received = bench(tmp_path, server, timeouts=Timeouts(read=0.3)).download()
    assert received.bytes_received <= len(BODY) + CHUNK


def test_a_wrong_chunk_alone_is_fetched_again(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=Flip(at=0))}) as bad, Server({"/m": Script(body=BODY)}) as good:
        received = bench(tmp_path, bad, good).download()
    assert received.bytes_received == len(BODY) + CHUNK


def test_a_mirror_that_refused_is_out_however_its_other_streams_end(tmp_path: Path) -> None:
    faults: list[Fault] = [stall(0.1), Status(410)]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        with pytest.raises(RefusedError):
            bench(tmp_path, server, streams=2, timeouts=Timeouts(read=0.3)).download()
        assert len(server.asked) == 2


def test_wrong_bytes_everywhere_are_an_integrity_error(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=Flip())}) as bad:
        with pytest.raises(IntegrityError):
            bench(tmp_path, bad).download()
        assert bad.sent("/m") <= len(BODY) + 2 * CHUNK


def test_a_server_without_ranges_works(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=Serve(ranges=False))}) as server:
        received = bench(tmp_path, server).download()
        assert received.bytes_received == len(BODY)


def test_resumes_from_what_an_earlier_run_left(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        one = bench(tmp_path, server)
        one.part.write_bytes(BODY[: 10 * CHUNK] + bytes(CHUNK) + BODY[11 * CHUNK : 20 * CHUNK + 7])
        received = one.download()
    assert received.resumed_from == 19 * CHUNK + 7
    assert received.bytes_received == len(BODY) - received.resumed_from


def test_what_came_wrong_is_never_written_over_what_came_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, place, right = os.pwrite, len(BODY) // 10, Event()

    def last_where_wrong(fd: int, data: memoryview, at: int) -> int:
        """A disk that would rather write anything else first."""
        if bytes(data) != BODY[at : at + len(data)]:
            right.wait(0.4)
        count = write(fd, data, at)
        if at <= place < at + count:
            right.set()
        return count

    monkeypatch.setattr(os, "pwrite", last_where_wrong)
    with Server({"/m": Script(body=BODY, then=Flip(at=0.1))}) as bad, Server({"/m": Script(body=BODY)}) as good:
        bench(tmp_path, bad, good).download()


def test_mirrors_that_all_hang_are_given_up(tmp_path: Path) -> None:
    # While one is asked, the other's wait is over: there is always somebody to ask.
    retry = RetryPolicy(attempts_without_progress=3, base=0.001, max=0.001)
    with Server({"/m": Script(then=Hang())}) as one, Server({"/m": Script(then=Hang())}) as other:
        with pytest.raises(NetworkError, match="was silent"):
            bench(tmp_path, one, other, retry=retry, timeouts=Timeouts(read=0.1)).download(
                deadline=time.monotonic() + 5
            )
        assert len(one.asked) + len(other.asked) <= 4


def test_a_mirror_that_fails_at_once_is_given_up_where_nobody_waits(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts_without_progress=3, base=0.0, max=0.0)
    with Server({"/m": Script(then=Status(503))}) as server:
        with pytest.raises(NetworkError, match="503"):
            bench(tmp_path, server, retry=retry).download(deadline=time.monotonic() + 3)
        assert len(server.asked) == 3


def test_a_chunk_that_only_a_server_without_ranges_has_right_is_got_there(tmp_path: Path) -> None:
    with (
        Server({"/m": Script(body=BODY, then=Flip())}) as bad,
        Server({"/m": Script(body=BODY, then=Serve(ranges=False))}) as good,
    ):
        bench(tmp_path, bad, good).download(deadline=time.monotonic() + 5)


def test_nobody_waits_for_a_stream_whose_chunks_others_have_brought(tmp_path: Path) -> None:
    with Server({"/m": Script(then=Hang())}) as stuck, Server({"/m": Script(body=BODY)}) as good:
        one = bench(tmp_path, stuck, good, timeouts=Timeouts(read=60))
        assert one.download(deadline=time.monotonic() + 30).url == good.url("/m")


@pytest.mark.parametrize("streams", [1, 4])
def test_a_range_over_everything_answered_with_everything_is_no_lack_of_ranges(streams: int, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[cut(0.5)])}) as server:
        received = bench(tmp_path, server, streams=streams).download()
    assert received.bytes_received == len(BODY)


def test_a_mirror_that_is_dropped_for_its_last_chunk_is_told(tmp_path: Path) -> None:
    body = BODY[: CHUNK // 2]
    with Server({"/m": Script(body=body, then=Flip())}) as bad:
        one = bench(tmp_path, bad)
        one.body = body
        with pytest.raises(IntegrityError):
            one.download()
        assert len(one.events.of("mirror_dropped")) == 1
