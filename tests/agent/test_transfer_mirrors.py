"""Which mirror is asked when, how long is waited, and which error names the cause in the end."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from fakes.exchange import Fault
from fakes.faults import Flip, Serve, Status, cut, redirect, unavailable
from fakes.server import Script, Server
from fakes.transfers import Bench, EventRecorder, sha256
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import STALL, Digest, RetryPolicy
from pxe_fetch.download.context import Context
from pxe_fetch.download.sequential import fetch_text
from pxe_fetch.errors import (
    DeadlineError,
    FetchError,
    IntegrityError,
    NetworkError,
    NotFoundError,
    PolicyError,
    RefusedError,
)
from pxe_fetch.plan import Source
from pxe_fetch.transport import Transports

BODY = random.Random(4).randbytes(200_000)
RIGHT = sha256(BODY)


def fails(*faults: Fault, folder: Path, retry: RetryPolicy | None = None) -> tuple[FetchError, Bench]:
    """How it ends when each fault is a mirror of its own, for ever."""
    servers = [Server({"/m": Script(body=BODY, then=fault)}) for fault in faults]
    bench = Bench(body=BODY, folder=folder, urls=[server.url("/m") for server in servers])
    bench.retry = retry or bench.retry
    try:
        with pytest.raises(FetchError) as caught:
            bench.download()
    finally:
        for server in servers:
            server.close()
    return caught.value, bench


def test_waits_grow_with_full_jitter_up_to_the_most(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts_without_progress=200, base=1.0, max=20.0, deadline=1e9)
    error, bench = fails(unavailable(), folder=tmp_path, retry=retry)
    assert isinstance(error, NetworkError)
    waits = bench.clock.waits
    assert len(waits) == 199
    assert all(wait <= min(20.0, 2.0**number) for number, wait in enumerate(waits))
    late = waits[10:]
    assert min(late) < 4  # the whole width is used
    assert max(late) > 16
    assert sum(late) / len(late) == pytest.approx(10, abs=3)


def test_retry_after_in_seconds_is_honoured(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[unavailable("7")])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.download()
    assert 7 <= bench.clock.waits[0] <= 8
    assert bench.events.of("retrying")[0]["status"] == 503


def test_retry_after_as_a_date_is_measured_on_the_servers_clock(tmp_path: Path) -> None:
    # The node's own clock may be years off at first boot.
    now = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    fields = {
        "Date": format_datetime(now, usegmt=True),
        "Retry-After": format_datetime(now + timedelta(seconds=40), usegmt=True),
    }
    with Server({"/m": Script(body=BODY, faults=[Status(429, fields)])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.download()
    assert 40 <= bench.clock.waits[0] <= 41


def test_retry_after_of_ten_years_is_capped(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[unavailable("315360000")])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.download()
    assert 300 <= bench.clock.waits[0] <= 301


def test_nobody_waits_for_one_mirror_while_another_is_there(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=unavailable("3600"))}) as busy, Server({"/m": Script(body=BODY)}) as free:
        bench = Bench(body=BODY, folder=tmp_path, urls=[busy.url("/m"), free.url("/m")])
        assert bench.download().url == free.url("/m")
    assert sum(bench.clock.waits) == 0
    told = bench.events.of("retrying")
    assert [(each["url"], each["next_url"], each["attempt"]) for each in told] == [(busy.url("/m"), free.url("/m"), 1)]


def test_404_has_a_small_budget_of_its_own(tmp_path: Path) -> None:
    error, bench = fails(Status(404), folder=tmp_path)
    assert isinstance(error, NotFoundError)
    assert error.exit_code == Exit.NETWORK
    assert len(bench.events.of("retrying")) == 3
    assert len(bench.events.of("mirror_dropped")) == 1


@pytest.mark.parametrize("code", [401, 403, 410])
def test_a_refusal_is_asked_for_once(code: int, tmp_path: Path) -> None:
    error, bench = fails(Status(code), folder=tmp_path)
    assert isinstance(error, RefusedError)
    assert (error.exit_code, error.status) == (Exit.REFUSED, code)
    assert (error.attempts, error.bytes_received, error.url) == (1, 0, bench.urls[0])
    assert bench.clock.waits == []


@pytest.mark.parametrize("code", [403, 404, 503])
def test_every_mirror_has_its_chance_however_few_attempts_there_are(code: int, tmp_path: Path) -> None:
    retry = RetryPolicy(attempts_without_progress=1)
    with Server({"/m": Script(body=BODY)}) as good, Server({"/m": Script(then=Status(code))}) as bad:
        bench = Bench(body=BODY, folder=tmp_path, urls=[bad.url("/m"), bad.url("/m"), good.url("/m")], retry=retry)
        assert bench.download().attempts == 3


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ([Status(403), Status(401)], RefusedError),
        ([Status(403), unavailable()], NetworkError),  # it may come back; the refusal is not the last word
        ([unavailable(), Status(403)], NetworkError),
        ([Status(403), Status(404)], NotFoundError),
        ([Flip(), Status(404)], NotFoundError),
        ([Flip(), Flip()], IntegrityError),
        ([Flip(), Status(403)], IntegrityError),
        ([Status(401), redirect("ftp://example.com/m")], PolicyError),
    ],
)
def test_the_error_in_the_end_is_the_one_that_may_heal(
    faults: list[Fault], cause: type[FetchError], tmp_path: Path
) -> None:
    random.seed(1)  # with other waits another of two that may heal can come last
    error, _ = fails(*faults, folder=tmp_path)
    assert type(error) is cause


def test_a_mirror_whose_bytes_are_wrong_twice_is_dropped(tmp_path: Path) -> None:
    error, bench = fails(Flip(), folder=tmp_path)
    assert isinstance(error, IntegrityError)
    assert error.expected == str(sha256(BODY))
    assert error.found not in {"", error.expected}
    [dropped] = bench.events.of("mirror_dropped")
    assert "wrong sha256" in str(dropped["reason"])
    assert len(bench.events.of("started")) == 2
    assert bench.part.read_bytes() == b""


def test_a_mirror_with_another_size_is_not_even_read(tmp_path: Path) -> None:
    other = b"x" * 50_000_000
    with Server({"/m": Script(body=other)}) as bad, Server({"/m": Script(body=BODY)}) as good:
        bench = Bench(body=BODY, folder=tmp_path, urls=[bad.url("/m"), good.url("/m")], size=len(BODY))
        assert bench.download().bytes_received == len(BODY)
        assert bad.sent("/m") < len(other)


def test_a_body_that_goes_on_beyond_the_size_is_cut_off(tmp_path: Path) -> None:
    endless = Serve(body=BODY + b"x" * 50_000_000, framing="chunked")
    with Server({"/m": Script(then=endless)}) as bad, Server({"/m": Script(body=BODY)}) as good:
        bench = Bench(body=BODY, folder=tmp_path, urls=[bad.url("/m"), good.url("/m")], size=len(BODY))
        bench.download()
        assert bad.sent("/m") < 50_000_000


def test_the_deadline_names_the_last_error(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts_without_progress=1000, deadline=90.0)
    error, bench = fails(unavailable("20"), folder=tmp_path, retry=retry)
    assert isinstance(error, DeadlineError)
    assert "the server answered 503" in str(error)
    assert sum(bench.clock.waits) < 90


def test_without_a_deadline_only_time_without_a_new_byte_counts(tmp_path: Path) -> None:
    # Ten pieces, with twenty minutes between any two of them.
    faults: list[Fault] = []
    for number in range(1, 10):
        faults += [cut(number / 10), *[unavailable("290")] * 4]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.download()
    assert sum(bench.clock.waits) > 4 * STALL


def test_half_an_hour_without_a_new_byte_ends_an_artifact(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts_without_progress=1000)
    error, bench = fails(unavailable("300"), folder=tmp_path, retry=retry)
    assert isinstance(error, DeadlineError)
    assert "the server answered 503" in str(error)
    assert STALL - 400 < sum(bench.clock.waits) < STALL


def test_a_deadline_that_is_written_counts_whatever_comes(tmp_path: Path) -> None:
    faults: list[Fault] = []
    for number in range(1, 10):
        faults += [cut(number / 10), unavailable("290")]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=RetryPolicy(deadline=600.0))
        with pytest.raises(DeadlineError):
            bench.download()
    assert 280 < sum(bench.clock.waits) < 600


def test_the_runs_deadline_counts_beside_the_artifacts(tmp_path: Path) -> None:
    with Server({"/m": Script(then=unavailable())}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        with pytest.raises(DeadlineError):
            bench.download(deadline=time.monotonic())
        assert server.asked == []


def test_a_stop_ends_a_wait(tmp_path: Path) -> None:
    from pxe_fetch.deadline import Clock
    from pxe_fetch.errors import StoppedError

    with Server({"/m": Script(then=unavailable("3600"))}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")])
        bench.clock.sleep = Clock().sleep  # type: ignore[method-assign]
        timer = threading.Timer(0.2, bench.stop.set)
        timer.start()
        with pytest.raises(StoppedError):
            bench.download()
        timer.join()


def test_secrets_of_a_url_are_told_to_nobody(tmp_path: Path) -> None:
    faults: list[Fault] = [unavailable(), cut(0.5), Status(404), Flip()]
    with Server({"/m": Script(body=BODY, faults=faults, then=Status(401))}) as server:
        url = f"{server.url('/m', user='joe:hunter2')}?token=s3cr3t#frag"
        bench = Bench(body=BODY, folder=tmp_path, urls=[url, f"http://joe:hunter2@{'x' * 70}.invalid:1/?s3cr3t"])
        with pytest.raises(FetchError) as caught:
            bench.download()
        assert server.asked[0].fields["authorization"].startswith("Basic ")
        server.down()
        with pytest.raises(FetchError) as refused:
            bench.download()
    text = f"{bench.events.all} {caught.value} {refused.value}"
    assert "/m" in text
    assert not any(secret in text for secret in ("hunter2", "joe", "s3cr3t", "token", "frag"))


def text_from(server: Server, *, digest: Digest | None = RIGHT, limit: int = 1_000_000) -> bytes:
    transports = Transports()
    context = Context(transports=transports, events=EventRecorder(), stop=threading.Event())
    retry = RetryPolicy(base=0.001, attempts_without_progress=3)
    source = Source(name="configuration", mirrors=((server.url("/t"),),), digest=digest, retry=retry)
    try:
        return fetch_text(source, context, limit=limit)
    finally:
        transports.close()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_text_is_fetched_with_the_same_persistence(framing: str) -> None:
    faults: list[Fault] = [unavailable(), cut(0.5), Serve(framing=framing)]
    with Server({"/t": Script(body=BODY, faults=faults)}) as server:
        assert text_from(server) == BODY
        assert [asked.range for asked in server.asked] == [None, None, f"bytes={len(BODY) // 2}-"]


def test_a_text_without_a_digest_is_never_put_together_from_two_answers() -> None:
    with Server({"/t": Script(body=BODY, faults=[cut(0.5), cut(0.9)])}) as server:
        assert text_from(server, digest=None) == BODY
        assert [asked.range for asked in server.asked] == [None, None, None]


def test_a_text_may_not_be_larger_than_its_limit() -> None:
    with Server({"/t": Script(body=BODY)}) as server:
        assert text_from(server, limit=len(BODY)) == BODY
        with pytest.raises(PolicyError, match="larger than the 199999 bytes"):
            text_from(server, limit=len(BODY) - 1)
        assert len(server.asked) == 2


def test_a_text_with_another_digest_is_refused() -> None:
    with Server({"/t": Script(body=BODY[1:])}) as server, pytest.raises(IntegrityError):
        text_from(server)


def test_what_is_fetched_again_after_wrong_bytes_is_progress(tmp_path: Path) -> None:
    # Else a server that was wrong once and is slow since would use up the attempts of one that brings nothing.
    retry = RetryPolicy(attempts_without_progress=2)
    faults: list[Fault] = [cut(0.95), Flip(at=0.97), *(cut(number / 10) for number in range(1, 10))]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], retry=retry).download().attempts == 12
