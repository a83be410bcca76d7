"""Which mirror is asked while several work, when one is given up, and whose fault a failure is."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.chunks import chunk_digests, chunk_listing
from fakes.content import Content
from fakes.exchange import Exchange, Fault
from fakes.faults import (
    BreaksRanges,
    Flip,
    Hang,
    Raw,
    RefusesRanges,
    Serve,
    Status,
    WrongRange,
    cut,
    drip,
    stall,
)
from fakes.ftp import Breach, BreakingFtp
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from fakes.stopwatch import Stopwatch
from fakes.tftp import LossyTftp, Trouble
from fakes.transfers import Bench
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.errors import FetchError, IntegrityError, NoRoomError, RefusedError
from pxe_fetch.transport import Transport, Transports

CHUNK = 64 * 1024
BODY = random.Random(41).randbytes(40 * CHUNK + 12345)
BOTH = pytest.mark.parametrize("chunk", [None, CHUNK], ids=["whole", "chunks"])


@dataclass(frozen=True, kw_only=True)
class Brief(Serve):
    """Whatever is asked for, no more than `most` bytes come before the connection breaks."""

    most: int

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        stop = min(end, start + self.most)
        exchange.send_body(content.read(start, stop), at=start)
        exchange.keep &= stop == end


def bench(folder: Path, *servers: Server, chunk: int | None = CHUNK, keep_order: bool = False) -> Bench:
    urls = [server.url("/m") for server in servers]
    return Bench(body=BODY, folder=folder, urls=urls, chunk=chunk, keep_order=keep_order)


@BOTH
def test_in_listed_order_the_second_mirror_is_left_alone_while_the_first_works(
    chunk: int | None, tmp_path: Path
) -> None:
    with Server({"/m": Script(body=BODY)}) as first, Server({"/m": Script(body=BODY)}) as second:
        bench(tmp_path, first, second, chunk=chunk, keep_order=True).download()
        assert not second.asked


def test_a_listed_mirror_alone_serves_all_streams(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as first, Server({"/m": Script(body=BODY)}) as second:
        bench(tmp_path, first, second, keep_order=True).download()
        assert len({asked.connection for asked in first.asked}) > 1


@BOTH
def test_in_listed_order_the_next_mirror_takes_over_where_the_one_before_fails(
    chunk: int | None, tmp_path: Path
) -> None:
    with (
        Server({"/m": Script(then=Status(503))}) as first,
        Server({"/m": Script(body=BODY)}) as second,
        Server({"/m": Script(body=BODY)}) as third,
    ):
        result = bench(tmp_path, first, second, third, chunk=chunk, keep_order=True).download()
        assert result.url == second.url("/m")
        assert not third.asked


def test_spread_mirrors_share_the_chunks(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as first, Server({"/m": Script(body=BODY)}) as second:
        bench(tmp_path, first, second).download()
        assert first.asked
        assert second.asked


def test_lists_of_chunk_digests_are_asked_for_in_listed_order(node: FakeNode) -> None:
    listed = chunk_listing(BODY, size=CHUNK)
    with Server({"/m": Script(body=BODY), "/one": Script(body=listed), "/two": Script(body=listed)}) as server:
        chunks = {
            "size": CHUNK,
            "urls": [server.url("/one"), server.url("/two")],
            "sha256": hashlib.sha256(listed).hexdigest(),
        }
        names = [f"m{number}" for number in range(8)]
        entries = [
            node.entry(name, server.url("/m"), BODY, size=len(BODY), chunks=chunks, mirror_order="listed")
            for name in names
        ]
        assert node.run_config(*entries).code == 0
        assert len(server.asked_for("/one")) == len(names)
        assert not server.asked_for("/two")


@BOTH
def test_a_mirror_that_delivers_is_not_given_up_for_many_that_are_dead(chunk: int | None, tmp_path: Path) -> None:
    retry = RetryPolicy(attempts_without_progress=3, base=0.01, max=0.02)
    with ExitStack() as stack:
        dead = [stack.enter_context(Server({"/m": Script(then=Status(503))})) for _ in range(12)]
        good = stack.enter_context(Server({"/m": Script(body=BODY, then=Brief(most=CHUNK + 1000))}))
        one = bench(tmp_path, *dead, good, chunk=chunk)
        one.retry = retry
        assert one.download().url == good.url("/m")


def test_bytes_that_come_while_other_mirrors_fail_are_progress(tmp_path: Path) -> None:
    # The only stream that brings anything is in the middle of its range when all others have failed.
    retry = RetryPolicy(attempts_without_progress=2, base=0.0, max=0.0)
    with ExitStack() as stack:
        slow = Serve(until=0.9, drip=0.0001)
        good = stack.enter_context(Server({"/m": Script(body=BODY, faults=[slow], then=Brief(most=CHUNK))}))
        dead = [stack.enter_context(Server({"/m": Script(then=Status(503))})) for _ in range(4)]
        one = bench(tmp_path, good, *dead)
        one.retry = retry
        assert one.download().bytes_received <= len(BODY) + CHUNK


@pytest.mark.parametrize(
    "fault", [stall(CHUNK // 2), Hang(), drip(CHUNK // 2, every=0.05)], ids=["silent", "mute", "slow"]
)
def test_what_a_slow_mirror_has_left_is_taken_over_by_an_idle_one(fault: Fault, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=fault)}) as slow, Server({"/m": Script(body=BODY)}) as good:
        one = bench(tmp_path, slow, good)
        one.timeouts = Timeouts(read=60)
        with Stopwatch() as watch:
            result = one.download()
        assert watch.seconds < 8
        assert slow.asked
    assert result.bytes_received <= len(BODY) + CHUNK


def test_two_different_chunks_that_came_wrong_once_do_not_drop_the_only_mirror(tmp_path: Path) -> None:
    faults = [Flip(at=0.1), Flip(at=0.6)]
    with Server({"/m": Script(body=BODY, faults=faults)}) as server:
        one = bench(tmp_path, server)
        one.streams = 1
        result = one.download()
        assert not one.events.of("mirror_dropped")
    assert result.bytes_received == len(BODY) + 2 * CHUNK


def test_a_chunk_that_comes_wrong_in_another_way_each_time_does_not_drop_the_only_mirror(tmp_path: Path) -> None:
    flips = [Flip(at=int(0.5 * len(BODY)) + number) for number in range(3)]
    with Server({"/m": Script(body=BODY, faults=flips)}) as server:
        one = bench(tmp_path, server)
        one.streams = 1
        result = one.download()
        assert not one.events.of("mirror_dropped")
    assert (result.attempts, result.bytes_received) == (4, len(BODY) + 3 * CHUNK)


def test_another_total_told_now_and_then_does_not_drop_the_only_mirror(tmp_path: Path) -> None:
    liar, brief = WrongRange(whole=7), Brief(most=2 * CHUNK + 1000)
    with Server({"/m": Script(body=BODY, faults=[brief, liar, brief, liar, brief, liar])}) as server:
        one = bench(tmp_path, server)
        one.streams = 1
        result = one.download()
        assert not one.events.of("mirror_dropped")
    assert result.bytes_received == len(BODY)
    assert result.attempts == 7


def test_a_mirror_that_always_tells_another_total_is_dropped(tmp_path: Path) -> None:
    with Server({"/m": Script(then=Serve(body=BODY + b"more"))}) as server:
        one = bench(tmp_path, server)
        with pytest.raises(IntegrityError, match="wrong size"):
            one.download()
        assert len(server.asked) == 2


@BOTH
def test_the_only_mirror_is_never_left_for_being_slow(chunk: int | None, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=drip(len(BODY) - 60, every=0.02))}) as server:
        one = bench(tmp_path, server, chunk=chunk)
        one.streams = 1
        one.timeouts = Timeouts(min_rate=1024, min_rate_window=0.2)
        assert one.download().attempts == 1
        assert len(server.asked) == 1


@BOTH
def test_a_slow_mirror_is_left_for_another(chunk: int | None, tmp_path: Path) -> None:
    slow = drip(len(BODY) - 6000, every=0.02)
    with Server({"/m": Script(body=BODY, then=slow)}) as first, Server({"/m": Script(body=BODY)}) as second:
        one = bench(tmp_path, first, second, chunk=chunk, keep_order=True)
        one.streams = 1
        one.timeouts = Timeouts(min_rate=1024, min_rate_window=0.2)
        result = one.download()
        assert (result.url, result.bytes_received) == (second.url("/m"), len(BODY))


@BOTH
def test_a_line_that_collapses_is_left_for_a_new_one_of_its_mirror_while_the_other_is_slow_too(
    chunk: int | None, tmp_path: Path
) -> None:
    at = len(BODY) - 6000  # at 50 B/s the rest would take two minutes
    slow, once = Script(body=BODY, then=drip(1000, every=0.02)), Script(body=BODY, faults=[drip(at, every=0.02)])
    with Server({"/m": slow}) as first, Server({"/m": once}) as second:
        one = bench(tmp_path, first, second, chunk=chunk, keep_order=True)
        one.streams = 1
        one.timeouts = Timeouts(min_rate=1024, min_rate_window=0.2)
        with Stopwatch() as watch:
            result = one.download()
        assert watch.seconds < 10
        assert result.url == second.url("/m")
        assert len(second.asked) >= 2
        assert result.bytes_received == len(BODY)


@BOTH
def test_mirrors_whose_new_lines_are_slow_too_are_not_asked_again_and_again(chunk: int | None, tmp_path: Path) -> None:
    slow, at = Script(body=BODY, then=drip(1000, every=0.02)), len(BODY) - 100  # for two seconds
    with Server({"/m": slow}) as first, Server({"/m": Script(body=BODY, then=drip(at, every=0.02))}) as second:
        one = bench(tmp_path, first, second, chunk=chunk, keep_order=True)
        one.streams = 1
        one.timeouts = Timeouts(min_rate=1024, min_rate_window=0.2)
        one.download()
        assert 3 <= len(first.asked) + len(second.asked) <= 6


def test_a_chunk_that_only_a_mirror_can_have_which_was_slow_is_asked_for_at_once(tmp_path: Path) -> None:
    slow, wrong = Script(body=BODY, faults=[drip(1000, every=0.02)]), Script(body=BODY, faults=[Flip(at=0.45)])
    with Server({"/m": slow}) as first, Server({"/m": wrong}) as second:
        one = bench(tmp_path, first, second, keep_order=True)
        one.streams = 1
        one.timeouts = Timeouts(min_rate=1024, min_rate_window=0.2)
        with Stopwatch() as watch:
            one.download()
        assert watch.seconds < 10
        assert len(first.asked) == 2


def test_a_mirror_that_has_few_wrong_chunks_among_many_stays(tmp_path: Path) -> None:
    flaky = [Flip(at=0.45), Flip(at=0.9)]
    with Server({"/m": Script(body=BODY, faults=flaky)}) as one, Server({"/m": Script(then=stall(0))}) as stuck:
        both = bench(tmp_path, one, stuck)
        both.streams = 1
        both.timeouts = Timeouts(read=0.2)
        both.download()
        assert one.url("/m") not in {told["url"] for told in both.events.of("mirror_dropped")}


@BOTH
def test_a_mirror_with_another_file_is_dropped_at_its_second_answer(chunk: int | None, tmp_path: Path) -> None:
    other = Serve(body=BODY[::-1])
    with Server({"/m": Script(then=other)}) as bad, Server({"/m": Script(body=BODY)}) as good:
        one = bench(tmp_path, bad, good, chunk=chunk)
        one.streams = 1
        result = one.download()
        assert len(bad.asked) <= 2
    assert result.url == good.url("/m")


def no_room(size: int) -> None:
    if size > len(BODY):
        raise NoRoomError(f"{size} bytes do not fit")


@contextmanager
def claims_too_much(scheme: str) -> Iterator[str]:
    """The url of a mirror that claims more bytes than fit."""
    size = 100 << 30
    match scheme:
        case "ftp":
            with BreakingFtp(BODY, Breach(size=f"213 {size}")) as ftp:
                yield ftp.url
        case "tftp":
            with LossyTftp(BODY, Trouble(claims=size)) as tftp:
                yield tftp.url
        case _:
            with Server({"/m": Script(then=Serve(body=BODY + b"more"))}) as http:
                yield http.url("/m")


@pytest.mark.parametrize("scheme", ["http", "ftp", "tftp"])
def test_a_size_that_does_not_fit_is_first_of_all_the_claim_of_one_mirror(scheme: str, tmp_path: Path) -> None:
    with claims_too_much(scheme) as liar, Server({"/m": Script(body=BODY)}) as good:
        one = Bench(body=BODY, folder=tmp_path, urls=[liar, good.url("/m")], keep_order=True)
        assert one.download(reserve=no_room).url == good.url("/m")
        [retried] = one.events.of("retrying")
        assert retried["url"] == liar
        assert "do not fit" in str(retried["error"])


def test_a_size_that_does_not_fit_is_not_believed_if_it_was_claimed_once(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[Serve(body=BODY + b"more")])}) as server:
        bench(tmp_path, server, chunk=None).download(reserve=no_room)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_size_that_one_of_two_mirrors_claims_is_not_why_both_failed(is_first: bool, tmp_path: Path) -> None:  # noqa: FBT001
    with (
        Server({"/m": Script(then=Serve(body=BODY + b"more"))}) as liar,
        Server({"/m": Script(then=Status(403))}) as shut,
    ):
        servers = (liar, shut) if is_first else (shut, liar)
        with pytest.raises(RefusedError, match="403"):
            bench(tmp_path, *servers, chunk=None, keep_order=True).download(reserve=no_room)


def test_a_server_that_answers_every_range_with_an_error_is_asked_for_the_whole_before_it_is_given_up(
    tmp_path: Path,
) -> None:
    """As some filters and broken caches do. Where a part is here, it is given up last."""
    refuses = RefusesRanges(503)
    with Server(
        {"/chunks": Script(body=BODY, then=refuses), "/m": Script(body=BODY, faults=[cut(0.5)], then=refuses)}
    ) as one:
        whole = bench(tmp_path, one, chunk=None)
        assert whole.download().attempts == whole.retry.attempts_without_progress + 1
        chunks = bench(tmp_path, one)
        chunks.part.unlink()
        chunks.urls = [one.url("/chunks")]
        chunks.streams = 1
        assert chunks.download().bytes_received == len(BODY)


def test_a_size_that_does_not_fit_is_believed_where_all_mirrors_agree(tmp_path: Path) -> None:
    huge = Serve(body=BODY + b"more")
    with Server({"/m": Script(then=huge)}) as one, Server({"/m": Script(then=huge)}) as other:
        both = bench(tmp_path, one, other, chunk=None)
        with pytest.raises(NoRoomError, match="do not fit"):
            both.download(reserve=no_room)
        assert not both.part.exists()
        assert (len(one.asked), len(other.asked)) == (2, 2)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_bytes_without_end_are_the_fault_of_the_mirror_that_sends_them(framing: str, tmp_path: Path) -> None:
    endless = Serve(body=BODY * 20, framing=framing)
    with Server({"/m": Script(then=endless)}) as bad, Server({"/m": Script(body=BODY)}) as good:
        one = bench(tmp_path, bad, good, chunk=None)
        result = one.download(reserve=no_room)
        assert result.url == good.url("/m")
        assert bad.sent("/m") < 10 * len(BODY)  # the rest was left in the line
        one.part.unlink()
        one.urls = [bad.url("/m")]
        with pytest.raises(NoRoomError, match="do not fit"):
            one.download(reserve=no_room)
        assert not one.part.exists()


def test_a_file_whose_size_nobody_knows_needs_no_more_room_than_it_takes(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, then=Serve(framing="chunked"))}) as server:
        bench(tmp_path, server, chunk=None).download(reserve=no_room)


class Surprising(Transports):
    """Has no idea how to read what one path is answered with."""

    def of(self, url: str) -> Transport:
        if url.endswith("/strange"):
            raise ZeroDivisionError("surprise")
        return super().of(url)


@BOTH
def test_an_answer_that_nobody_foresaw_is_its_mirrors_fault(chunk: int | None, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        one = bench(tmp_path, server, chunk=chunk)
        one.urls = [server.url("/strange"), server.url("/m")]
        one.transports = Surprising()
        assert one.download().url == server.url("/m")
        one.urls = [server.url("/strange")]
        one.part.unlink()
        with pytest.raises(FetchError, match="surprise") as caught:
            one.download()
        one.transports.close()
    assert caught.value.exit_code == Exit.BUG


@contextmanager
def claims(scheme: str, size: int) -> Iterator[str]:
    """The url of a server that says its file has `size` bytes, and sends BODY."""
    if scheme == "ftp":
        with BreakingFtp(BODY, Breach(size=f"213 {size}")) as ftp:
            yield ftp.url
    else:
        with LossyTftp(BODY, Trouble(claims=size, window=16)) as tftp:
            yield tftp.url


@BOTH
@pytest.mark.parametrize("is_known", [False, True], ids=["size unknown", "size known"])
@pytest.mark.parametrize("claimed", [0, 1000, len(BODY) - 1, len(BODY) + 1, 2 * len(BODY)])
@pytest.mark.parametrize("scheme", ["ftp", "tftp"])
def test_a_size_that_is_told_beside_the_bytes_does_not_matter_if_they_are_right(
    scheme: str,
    claimed: int,
    is_known: bool,  # noqa: FBT001
    chunk: int | None,
    tmp_path: Path,
) -> None:
    with claims(scheme, claimed) as url:
        size = len(BODY) if is_known else None
        one = Bench(body=BODY, folder=tmp_path, urls=[url], chunk=chunk, size=size)
        assert one.download().attempts == 1


@pytest.mark.parametrize("scheme", ["ftp", "tftp"])
def test_a_file_of_another_size_is_an_integrity_error_whatever_its_server_said(scheme: str, tmp_path: Path) -> None:
    with claims(scheme, 1000) as url:
        one = Bench(body=BODY[:-9], folder=tmp_path, urls=[url], size=len(BODY) - 9)
        with pytest.raises(IntegrityError, match="wrong size"):
            one.download()


def entry(node: FakeNode, *servers: Server, chunk: int | None, body: bytes = BODY) -> Entry:
    """An artifact of `body` that these servers have at /m, in listed order."""
    urls = [server.url("/m") for server in servers]
    found = dict(node.entry("m", "", body, urls=urls, mirror_order="listed"))
    del found["url"]
    if chunk:
        digests = chunk_digests(body, size=chunk)
        found |= {"size": len(body), "chunks": {"size": chunk, "sha256": digests}}
    return found


@pytest.mark.parametrize(
    "fault",
    [Status(403), Status(404), Status(500), Raw(b""), cut(0)],
    ids=["403", "404", "500", "closes", "cuts"],
)
def test_a_server_that_breaks_every_range_serves_the_whole_in_one_stream(fault: Fault, node: FakeNode) -> None:
    """As some filters, caches and signed URLs do."""
    broken = Script(body=BODY, then=BreaksRanges(fault))
    defaults = {"retry": {"attempts_without_progress": 4, "base": "1ms", "max": "5ms"}}
    with Server({"/m": broken}) as server:
        ran = node.run_config(entry(node, server, chunk=CHUNK), parallel=4, defaults=defaults)
        assert (ran.code, ran.artifact("m")["bytes_received"]) == (0, len(BODY)), ran.err
        assert server.sent("/m") == len(BODY)


@pytest.mark.parametrize("code", [403, 404])
def test_the_rest_of_a_file_that_is_refused_is_fetched_as_a_whole(code: int, node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[cut(0.5)], then=RefusesRanges(code))}) as server:
        ran = node.run_config(entry(node, server, chunk=None))
        assert ran.code == 0, ran.err
        assert [asked.range is None for asked in server.asked] == [True, False, True]


@BOTH
def test_a_listed_mirror_that_collapses_is_left_within_two_read_timeouts(chunk: int | None, node: FakeNode) -> None:
    read = 2.0
    slow = drip(0.4, every=0.02)
    with Server({"/m": Script(body=BODY, then=slow)}) as first, Server({"/m": Script(body=BODY)}) as second:
        defaults = {"timeouts": {"read": f"{read:g}s"}}
        with Stopwatch() as watch:
            ran = node.run_config(entry(node, first, second, chunk=chunk), parallel=2, defaults=defaults)
        assert (ran.code, ran.artifact("m")["bytes_received"]) == (0, len(BODY)), ran.err
        assert first.asked
        assert watch.seconds < 2 * read + 1.5


@BOTH
@pytest.mark.parametrize("then", ["close", "stall"])
def test_a_mirror_that_sends_a_web_page_is_asked_last_and_its_bytes_are_not_continued(
    then: str, chunk: int | None, node: FakeNode
) -> None:
    page = b"<html>please log in</html>"
    junk = Serve(
        body=page + b"." * (then == "stall"),
        framing="close",
        ranges=False,
        etag=None,
        until=len(page),
        then=then,
        fields={"Content-Type": "text/html"},
    )
    good = Script(body=BODY, faults=[Status(503), Status(503)])
    with Server({"/m": Script(then=junk)}) as bad, Server({"/m": good}) as other:
        defaults = {"retry": {"base": "100ms"}, "timeouts": {"read": "3s"}}
        with Stopwatch() as watch:
            ran = node.run_config(entry(node, bad, other, chunk=chunk), defaults=defaults)
        assert (ran.code, len(bad.asked)) == (0, 1), ran.err
        assert ran.artifact("m")["bytes_received"] == len(BODY) + len(page)
        assert watch.seconds < 8
