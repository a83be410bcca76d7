"""Every fault, once and for ever, alone and beside a healthy mirror, one file and six at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.exchange import Fault
from fakes.faults import (
    Declares,
    Flip,
    Gzipped,
    Hang,
    Raw,
    Serve,
    Status,
    WrongRange,
    cut,
    drip,
    redirect,
    reset,
    stall,
    unavailable,
)
from fakes.server import Script, Server
from fakes.transfers import PATIENT, QUICK, Bench, QuickClock, Story
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.errors import (
    DeadlineError,
    FetchError,
    IntegrityError,
    NetworkError,
    NotFoundError,
    PolicyError,
    RefusedError,
)
from pxe_fetch.transfer.intake import BUFFER
from pxe_fetch.transport import Transports

BODY = random.Random(2).randbytes(300_000)
FEW = RetryPolicy(attempts_without_progress=2)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What happens to the first requests; `lasting`: how it ends if it never stops happening (None: it works)."""

    name: str
    faults: Sequence[Fault]
    lasting: type[FetchError] | None
    corrupts: bool = False  # only the digest can tell
    slow: bool = False  # it takes a timeout to notice
    again: int = 0  # bytes that have to be fetched twice because of it, beside a buffer

    @property
    def timeouts(self) -> Timeouts:
        return QUICK if self.slow else PATIENT


NO_RANGES = Serve(ranges=False)
CASES = [
    Case(name="503", faults=[unavailable()], lasting=NetworkError),
    Case(name="503 for 7 seconds", faults=[unavailable("7")], lasting=NetworkError),
    Case(name="503 until a date", faults=[unavailable("Fri, 31 Dec 2100 23:59:59 GMT")], lasting=NetworkError),
    Case(name="503 for ten years", faults=[unavailable("315360000")], lasting=NetworkError),
    Case(name="503 until nonsense", faults=[unavailable("soon")], lasting=NetworkError),
    Case(name="429", faults=[Status(429, {"Retry-After": "1"})], lasting=NetworkError),
    Case(name="408", faults=[Status(408)], lasting=NetworkError),
    Case(name="425", faults=[Status(425)], lasting=NetworkError),
    Case(name="404 for a while", faults=[Status(404)] * 3, lasting=NotFoundError),
    Case(name="204", faults=[Status(204)], lasting=NetworkError),
    Case(name="304", faults=[Status(304)], lasting=NetworkError),
    Case(name="reset at 0", faults=[reset(0)], lasting=NetworkError),
    Case(name="reset at one byte", faults=[reset(1)], lasting=NetworkError),
    Case(name="reset in the middle", faults=[reset(0.5)], lasting=NetworkError),
    Case(name="stall at 0", slow=True, faults=[stall(0)], lasting=NetworkError),
    Case(name="stall in the middle", slow=True, faults=[stall(0.5)], lasting=NetworkError),
    Case(name="drip", slow=True, faults=[drip(0.5, every=0.03)], lasting=DeadlineError),
    Case(name="cut at 0", faults=[cut(0)], lasting=NetworkError),
    Case(name="cut before the last byte", faults=[cut(len(BODY) - 1)], lasting=NetworkError),
    Case(name="cut Content-Length body", faults=[cut(0.5)], lasting=NetworkError),
    Case(name="cut chunked body", faults=[cut(0.5, framing="chunked")], lasting=NetworkError),
    Case(
        name="stalled chunked body",
        slow=True,
        faults=[Serve(until=0.5, then="stall", framing="chunked")],
        lasting=NetworkError,
    ),
    Case(name="cut close-delimited body", faults=[cut(0.5, framing="close")], lasting=NetworkError),
    Case(name="chunked body", faults=[Serve(framing="chunked")], lasting=None),
    Case(name="close-delimited body", faults=[Serve(framing="close")], lasting=None),
    Case(name="200 to a range", faults=[cut(0.5), NO_RANGES], lasting=None, again=len(BODY)),
    Case(name="206 too far", faults=[cut(0.5), WrongRange(first=1)], lasting=None, again=len(BODY)),
    Case(name="206 too early", faults=[cut(0.5), WrongRange(first=-1)], lasting=None, again=len(BODY)),
    Case(name="206 short", faults=[cut(0.5), WrongRange(last=-1)], lasting=None, again=len(BODY)),
    Case(name="206 beyond the end", faults=[cut(0.5), WrongRange(last=1)], lasting=None, again=len(BODY)),
    Case(name="206 of another total", faults=[cut(0.5), WrongRange(whole=7)], lasting=None, again=len(BODY)),
    Case(name="206 of other bytes", faults=[cut(0.5), Serve(shift=9)], lasting=None, again=len(BODY)),
    Case(name="206 of earlier bytes", faults=[cut(0.5), Serve(shift=-9)], lasting=None, again=len(BODY)),
    Case(name="206 of fewer bytes", faults=[cut(0.5), Serve(short=9)], lasting=None, again=len(BODY)),
    Case(name="206 without range", faults=[cut(0.5), WrongRange(missing=True)], lasting=None, again=len(BODY)),
    Case(name="416 in the middle", faults=[cut(0.5), Status(416)], lasting=RefusedError, again=len(BODY)),
    Case(name="changed ETag", faults=[cut(0.5), Serve(etag='"new"')], lasting=None, again=len(BODY)),
    Case(name="weak ETag", faults=[Serve(until=0.5, etag="weak"), Serve(etag="weak")], lasting=None),
    Case(name="no ETag", faults=[Serve(until=0.5, etag=None), Serve(etag=None)], lasting=None),
    Case(name="wrong byte", corrupts=True, faults=[Flip()], lasting=IntegrityError, again=len(BODY)),
    Case(name="gzip not asked for", corrupts=True, faults=[Gzipped()], lasting=IntegrityError, again=len(BODY) + 1000),
    Case(name="longer than declared", faults=[Declares(extra=b"x" * 5000)], lasting=None),
    Case(
        name="declared too short", corrupts=True, faults=[Declares(more=-100)], lasting=IntegrityError, again=len(BODY)
    ),
    Case(name="declared too long", faults=[Declares(more=100)], lasting=None),
    Case(name="no answer", slow=True, faults=[Hang()], lasting=NetworkError),
    Case(name="header byte by byte", slow=True, faults=[Hang(every=0.03)], lasting=NetworkError),
    Case(name="hangs up", faults=[Raw(b"")], lasting=NetworkError),
    Case(name="not HTTP", faults=[Raw(b"SSH-2.0-OpenSSH_9.2\r\n")], lasting=NetworkError),
    Case(name="half a header", faults=[Raw(b"HTTP/1.1 200 OK\r\nContent-Le")], lasting=NetworkError),
    Case(name="a header of 1 MB", faults=[Status(200, {"X-Big": "x" * 1_000_000})], lasting=NetworkError),
    Case(
        name="10,000 header fields", faults=[Status(200, {f"X-{n}": "x" for n in range(10_000)})], lasting=NetworkError
    ),
    Case(
        name="bad chunk size",
        faults=[Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")],
        lasting=NetworkError,
    ),
    Case(
        name="endless chunk size",
        faults=[Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 70_000)],
        lasting=NetworkError,
    ),
    Case(
        name="two lengths",
        faults=[Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")],
        lasting=NetworkError,
    ),
    Case(name="redirect to nowhere", faults=[Status(302)], lasting=NetworkError),
    Case(name="redirect to what is no URL", faults=[redirect("http://[::1/x")], lasting=NetworkError),
]
FOR_EVER = [case for case in CASES if len(case.faults) == 1 or case.name == "404 for a while"]
FINAL = [
    Case(name="401", faults=[Status(401)], lasting=RefusedError),
    Case(name="403", faults=[Status(403)], lasting=RefusedError),
    Case(name="410", faults=[Status(410)], lasting=RefusedError),
    Case(name="400", faults=[Status(400)], lasting=RefusedError),
    Case(name="redirect loop", faults=[redirect("/1", code=301)], lasting=PolicyError),
    Case(name="redirect to a file", faults=[redirect("file:///etc/passwd")], lasting=PolicyError),
]


def named(case: Case) -> str:
    return case.name.replace(" ", "-")


def check_invariants(bench: Bench) -> None:
    """Whatever happened: nothing but the part is there, and it is no longer than the artifact."""
    there = list(bench.folder.iterdir())
    assert there in ([bench.part], [])


@pytest.mark.parametrize("files", [1, 6])
@pytest.mark.parametrize("mirror", ["alone", "mirrored"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_gets_over(case: Case, mirror: str, files: int, tmp_path: Path) -> None:
    paths = [f"/{number}" for number in range(files)]
    with (
        Server({path: Script(body=BODY, faults=case.faults) for path in paths}) as bad,
        Server({path: Script(body=BODY) for path in paths}) as good,
        ThreadPoolExecutor(files) as threads,
    ):
        transports = Transports()
        benches = []
        for path in paths:
            folder = tmp_path / path[1:]
            folder.mkdir()
            urls = [bad.url(path), *([good.url(path)] if mirror == "mirrored" else [])]
            benches.append(Bench(body=BODY, folder=folder, urls=urls, transports=transports, timeouts=case.timeouts))
        for bench, received in zip(benches, threads.map(Bench.receive, benches), strict=True):
            check_invariants(bench)
            twice = received.bytes_received - len(BODY)
            assert not any("wrong sha" in str(told["error"]) for told in bench.story.of("retrying")) or case.corrupts
            assert twice <= case.again + BUFFER
            if not case.again:
                assert twice == 0
        transports.close()


@pytest.mark.parametrize("size", [None, len(BODY)], ids=["size-unknown", "size-known"])
@pytest.mark.parametrize("case", [*FOR_EVER, *FINAL], ids=named)
def test_ends_with_the_error_that_names_the_cause(case: Case, size: int | None, tmp_path: Path) -> None:
    with Server({"/1": Script(body=BODY, then=case.faults[0])}) as server:
        # Bytes that come one by one are progress, so that it is the deadline that ends it.
        retry = replace(FEW, deadline=0.5) if case.lasting is DeadlineError else FEW
        bench = Bench(
            body=BODY, folder=tmp_path, urls=[server.url("/1")], retry=retry, size=size, timeouts=case.timeouts
        )
        wrong_size = size is not None and case.name.startswith("declared too")
        expected = IntegrityError if wrong_size else case.lasting
        if expected is None:
            bench.receive()
        else:
            with pytest.raises(FetchError) as caught:
                bench.receive()
            assert type(caught.value) is expected
        check_invariants(bench)


@pytest.mark.parametrize("case", [*FOR_EVER, *FINAL], ids=named)
def test_turns_to_the_healthy_mirror(case: Case, tmp_path: Path) -> None:
    with Server({"/1": Script(body=BODY, then=case.faults[0])}) as bad, Server({"/1": Script(body=BODY)}) as good:
        bench = Bench(
            body=BODY, folder=tmp_path, urls=[bad.url("/1"), good.url("/1")], retry=FEW, timeouts=case.timeouts
        )
        received = bench.receive()
        assert received.url == (bad.url("/1") if case.lasting is None else good.url("/1"))
        assert not bench.clock.waits or max(bench.clock.waits) == 0  # nobody waits who can go elsewhere


def test_a_server_that_goes_down_and_up_twenty_times_costs_nothing_twice(tmp_path: Path) -> None:
    with Server({"/1": Script(body=BODY, faults=[cut(number / 21) for number in range(1, 21)])}) as server:

        def during(number: int) -> None:
            # Every second wait finds the server down, and up again at the next.
            (server.up if number % 2 else server.down)()

        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/1")], clock=QuickClock(during=during))
        received = bench.receive()
        assert received.bytes_received == len(BODY)
        assert len(server.asked_for("/1")) == 21
        assert received.attempts == 41
        assert len(bench.story.of("resumed")) == 20


def test_a_refused_connection_is_tried_again(tmp_path: Path) -> None:
    with Server({"/1": Script(body=BODY)}) as server:
        server.down()

        def during(number: int) -> None:
            if number == 2:
                server.up()

        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/1")], clock=QuickClock(during=during))
        assert bench.receive().attempts == 4
        assert all("refused the connection" in str(told["error"]) for told in bench.story.of("retrying"))


def test_a_server_that_stays_down_is_a_network_error(tmp_path: Path) -> None:
    with Server() as server:
        server.down()
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/1")])
        with pytest.raises(NetworkError, match=r"refused the connection.*10 attempts"):
            bench.receive()


def test_a_name_that_does_not_resolve_is_a_network_error(tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=["http://no-such-host.invalid/m"], retry=FEW)
    with pytest.raises(NetworkError, match=r"the name no-such-host\.invalid cannot be resolved"):
        bench.receive()


def test_each_story_is_told_with_the_artifacts_own_name(tmp_path: Path) -> None:
    story = Story()
    with Server({f"/{number}": Script(body=BODY, faults=[unavailable()]) for number in range(3)}) as server:
        transports = Transports()
        benches = [
            Bench(
                body=BODY, folder=tmp_path, urls=[server.url(f"/{n}")], name=f"m{n}", story=story, transports=transports
            )
            for n in range(3)
        ]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(Bench.receive, benches))
        transports.close()
    told = {facts["name"]: facts["url"] for facts in story.of("retrying")}
    assert told == {f"m{n}": server.url(f"/{n}") for n in range(3)}
