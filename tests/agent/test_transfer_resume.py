"""What has arrived is not fetched again: within a run, across runs, across mirrors; and it is never trusted unread."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fakes.exchange import Exchange, Fault
from fakes.faults import Flip, Hang, Serve, WrongRange, cut, reset, stall
from fakes.server import Script, Server
from fakes.transfers import QUICK, Bench, QuickClock
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.contract.quantity import amount
from pxe_fetch.download.copy import BUFFER
from pxe_fetch.errors import DeadlineError, PartInUseError, StoppedError

BODY = random.Random(3).randbytes(3_000_000)
HALF = len(BODY) // 2


def test_takes_up_what_an_earlier_run_left(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.part.write_bytes(BODY[:HALF])
        received = bench.download()
        assert [asked.range for asked in server.asked] == [f"bytes={HALF}-"]
    assert received.resumed_from == HALF
    assert received.bytes_received == len(BODY) - HALF
    assert bench.events.of("resumed") == [{"name": "model", "url": server.url("/m"), "offset": HALF}]
    assert bench.events.of("verifying") == [{"name": "model", "total": HALF}]


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_asks_nobody_when_an_earlier_run_left_all_of_it(size: int | None, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=["http://127.0.0.1:1/m"], size=size)
    bench.part.write_bytes(BODY)
    received = bench.download()
    assert (received.attempts, received.bytes_received, received.url) == (0, 0, None)
    assert bench.events.of("verified")


@pytest.mark.parametrize("size", [None, len(BODY)])
@pytest.mark.parametrize(
    "left",
    [b"\0" + BODY[1:HALF], b"\0" + BODY[1:], BODY + b"more", BODY[:-1] + b"\0", b"\0" * (len(BODY) + 9)],
    ids=["wrong-beginning", "all-but-wrong", "too-long", "last-byte-wrong", "too-long-and-wrong"],
)
def test_what_an_earlier_run_left_is_not_trusted(left: bytes, size: int | None, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], size=size)
        bench.part.write_bytes(left)
        bench.download()
        assert server.sent("/m") <= len(BODY) + HALF
    # It was nobody's fault but ours.
    assert not bench.events.of("mirror_dropped")


def test_what_an_earlier_run_left_wrong_is_not_held_against_a_mirror(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[Serve(), Flip()])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.part.write_bytes(b"\0" * HALF)
        # Wrong twice, but only the second time by its own fault alone.
        assert bench.download().attempts == 3


def test_resumes_after_a_kill_in_the_middle(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from fakes.transfers import Bench, Timeouts;"
        "body = pathlib.Path(sys.argv[2]).read_bytes();"
        "Bench(body=body, folder=pathlib.Path(sys.argv[3]), urls=[sys.argv[1]], timeouts=Timeouts()).download()"
    )
    folder, source = tmp_path / "to", tmp_path / "body"
    folder.mkdir()
    source.write_bytes(BODY)
    with Server({"/m": Script(body=BODY, faults=[stall(HALF)])}) as server:
        bench = Bench(body=BODY, folder=folder, urls=[server.url("/m")])
        arguments = [sys.executable, "-c", program, server.url("/m"), str(source), str(folder)]
        with subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as child:
            while not bench.part.exists() or bench.part.stat().st_size < HALF - BUFFER:
                assert child.poll() is None
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
        received = bench.download()
    assert received.resumed_from >= HALF - BUFFER
    assert received.bytes_received == len(BODY) - received.resumed_from


def test_a_stop_is_quick_and_keeps_what_has_arrived(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[stall(HALF)])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], timeouts=Timeouts())
        timer = threading.Timer(0.3, bench.stop.set)
        timer.start()
        with pytest.raises(StoppedError):
            bench.download()
        timer.join()
        assert bench.part.read_bytes() == BODY[:HALF]
        bench.stop.clear()
        assert bench.download().bytes_received == len(BODY) - HALF


def test_a_stop_is_quick_while_a_server_says_nothing(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[Hang()])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], timeouts=Timeouts(read=600))
        timer = threading.Timer(0.2, bench.stop.set)
        timer.start()
        with pytest.raises(StoppedError):
            bench.download()
        timer.join()


def test_a_long_body_that_breaks_again_and_again_is_whole(tmp_path: Path) -> None:
    # Long enough for its bytes to be hashed by a second thread.
    body = random.Random(9).randbytes(14_000_000)
    faults: list[Fault] = [cut(6_000_001), reset(11_999_999), stall(13_000_000)]
    with Server({"/m": Script(body=body, faults=faults)}) as server:
        bench = Bench(body=body, folder=tmp_path, urls=[server.url("/m")], timeouts=Timeouts(read=0.3))
        assert bench.download().bytes_received == len(body)


def test_the_deadline_ends_a_silence_and_keeps_what_has_arrived(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[stall(HALF)])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], timeouts=Timeouts())
        with pytest.raises(DeadlineError, match=f"{amount(HALF)} (of .* )?here"):
            bench.download(deadline=time.monotonic() + 0.3)
        assert bench.part.read_bytes() == BODY[:HALF]


def test_if_range_carries_a_strong_etag(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[cut(0.5)])}) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download()
        assert server.asked[1].range == f"bytes={HALF}-"
        assert (server.asked[1].if_range or "").startswith('"')


@pytest.mark.parametrize("etag", ["weak", None, "unquoted", '"' + "x" * 5000 + '"'])
def test_if_range_is_left_out_without_a_strong_etag(etag: str | None, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[Serve(until=0.5, etag=etag)], then=Serve(etag=etag))}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().bytes_received == len(BODY)
        assert server.asked[1].range == f"bytes={HALF}-"
        assert server.asked[1].if_range is None


def test_another_mirror_goes_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=cut(0.5))}) as one, Server({"/m": Script(body=BODY)}) as other:
        bench = Bench(body=BODY, folder=tmp_path, urls=[one.url("/m"), other.url("/m")])
        received = bench.download()
        assert received.bytes_received == len(BODY)
        assert received.url == other.url("/m")
        assert [asked.range for asked in other.asked] == [f"bytes={HALF}-"]
        assert other.asked[0].if_range is None  # the validator is the first one's


def test_a_mirror_with_ranges_is_preferred_to_one_without(tmp_path: Path) -> None:
    without = Script(body=BODY, faults=[cut(0.5)], then=Serve(ranges=False))
    with Server({"/m": without}) as one, Server({"/m": Script(body=BODY, faults=[cut(0.6)])}) as other:
        bench = Bench(body=BODY, folder=tmp_path, urls=[one.url("/m"), other.url("/m")])
        assert bench.download().bytes_received <= len(BODY) + BUFFER


def test_a_file_that_has_changed_on_the_server_twice_asked_is_fetched_from_the_start(tmp_path: Path) -> None:
    old = Serve(until=0.5, body=b"\0" * len(BODY))
    with Server({"/m": Script(body=BODY, faults=[old])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        received = bench.download()
        # One of several servers behind a name may have another ETag for the same file, so the range is asked for again.
        assert [asked.range for asked in server.asked] == [None, f"bytes={HALF}-", f"bytes={HALF}-"]
        assert received.bytes_received == len(BODY) + HALF


def test_a_range_with_another_etag_is_not_taken(tmp_path: Path) -> None:
    faults = [cut(0.5), Serve(etag='"other"', body=b"\0" * len(BODY), heeds_if_range=False)]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.download()
    assert "has changed" in str(bench.events.of("retrying")[1]["error"])


def test_wrong_bytes_are_dropped_and_fetched_elsewhere(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=Flip())}) as bad, Server({"/m": Script(body=BODY)}) as good:
        received = Bench(body=BODY, folder=tmp_path, urls=[bad.url("/m"), good.url("/m")]).download()
        assert received.url == good.url("/m")
        assert [asked.range for asked in good.asked] == [None]
        assert len(bad.asked) == 1


class DiesUnlessResumed:
    """A request for all of it gets less than half."""

    def answer(self, exchange: Exchange) -> None:
        (Serve() if exchange.asked.range else cut(0.4)).answer(exchange)


def test_bytes_of_two_mirrors_that_do_not_fit_are_told_apart(tmp_path: Path) -> None:
    # The good one's beginning and the bad one's rest would be put together for ever.
    retry = RetryPolicy(base=0.0, deadline=20.0)
    good, bad = Script(body=BODY, then=DiesUnlessResumed()), Script(body=BODY, then=Flip(at=0.7))
    with Server({"/m": good}) as one, Server({"/m": bad}) as other:
        bench = Bench(body=BODY, folder=tmp_path, urls=[one.url("/m"), other.url("/m")], retry=retry)
        assert bench.download().url == one.url("/m")
        assert [asked.range for asked in one.asked][1:] == [None, f"bytes={int(0.4 * len(BODY))}-"]
        assert [asked.range is None for asked in other.asked] == [False]


def test_wrong_ranges_from_the_only_server_cost_one_restart(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[cut(0.5)], then=WrongRange(first=3))}) as server:
        received = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download()
        assert [asked.range for asked in server.asked] == [None, f"bytes={HALF}-", f"bytes={HALF}-", None]
        assert received.bytes_received == len(BODY) + HALF


def test_a_server_without_ranges_is_not_taken_while_another_may_go_on_soon(tmp_path: Path) -> None:
    without, broken = Script(body=BODY, then=Serve(ranges=False)), Script(body=BODY, faults=[cut(0.75)])
    with Server({"/m": without}) as one, Server({"/m": broken}) as other:
        bench = Bench(body=BODY, folder=tmp_path, urls=[one.url("/m"), other.url("/m")])
        bench.part.write_bytes(BODY[:HALF])
        received = bench.download()
        assert [asked.range for asked in one.asked] == [f"bytes={HALF}-", f"bytes={3 * HALF // 2}-"]
        assert received.bytes_received == len(BODY) - HALF
        assert received.url == other.url("/m")


def test_a_stall_keeps_every_byte_that_came_before(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[stall(n) for n in (1, 1000, 70_000, 70_001, 2_999_999)])}) as server:
        received = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], timeouts=QUICK).download()
        assert received.bytes_received == len(BODY)
        assert [asked.range for asked in server.asked[1:]] == [
            f"bytes={n}-" for n in (1, 1000, 70_000, 70_001, 2_999_999)
        ]


def test_a_part_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=["http://127.0.0.1:1/m"])
    with bench.part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(PartInUseError, match="another run of pxe-fetch"):
            bench.download()


def test_progress_starts_the_waits_afresh(tmp_path: Path) -> None:
    faults = [cut(number / 100) for number in range(1, 60)]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        clock = QuickClock()
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], clock=clock)
        received = bench.download()
    assert received.attempts == 60
    assert received.bytes_received == len(BODY)
    assert max(clock.waits) <= bench.retry.base
