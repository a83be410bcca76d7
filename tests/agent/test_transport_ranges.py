"""Bounded ranges: what is asked for, what is taken for an answer to the byte, and who cannot bound them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.exchange import Exchange
from fakes.faults import Serve, Status, WrongRange
from fakes.server import Script, Server
from fakes.transfers import Bench, asking, everything
from pxe_fetch.errors import RangeError
from pxe_fetch.transport import Body, Transports

BODY = random.Random(8).randbytes(50_000)


@dataclass(frozen=True)
class RefusesRanges:
    """Serves the whole file alone."""

    code: int

    def answer(self, exchange: Exchange) -> None:
        (Status(self.code) if exchange.asked.range else Serve()).answer(exchange)


def opened(url: str, *, offset: int, end: int | None) -> Body:
    return Transports().of(url).open(asking(url, offset=offset, end=end))


@pytest.mark.parametrize(("offset", "end"), [(0, 10), (0, 50_000), (7, 8), (100, 40_000), (49_999, 50_000)])
def test_a_bounded_range_brings_exactly_its_bytes(offset: int, end: int) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        body = opened(server.url("/m"), offset=offset, end=end)
        assert (body.start, body.total, body.ranged) == (offset, 50_000, True) or end - offset == 50_000
        assert everything(body) == BODY[offset:end]
        assert server.asked[0].range == f"bytes={offset}-{end - 1}"


def test_the_connection_serves_the_next_range() -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        transport = Transports().of(server.url("/m"))
        for offset in (0, 1000, 2000):
            request = asking(server.url("/m"), offset=offset, end=offset + 1000)
            assert everything(transport.open(request)) == BODY[offset : offset + 1000]
        assert {asked.connection for asked in server.asked} == {1}


@pytest.mark.parametrize(
    "wrong",
    [
        WrongRange(first=1),
        WrongRange(last=-1),
        WrongRange(last=1),
        WrongRange(first=-1, last=-1),
        WrongRange(missing=True),
        WrongRange(whole=-48_000),
        Serve(short=1),
        Serve(shift=1),
    ],
    ids=repr,
)
def test_an_answer_that_is_not_to_the_byte_is_refused(wrong: Serve) -> None:
    with Server({"/m": Script(body=BODY, then=wrong)}) as server, pytest.raises(RangeError):
        opened(server.url("/m"), offset=1000, end=3000)


@pytest.mark.parametrize(
    "wrong", [WrongRange(whole=7), WrongRange(last=-1), WrongRange(first=1), Serve(short=1)], ids=repr
)
def test_the_rest_of_a_file_has_to_come_to_its_very_end(wrong: Serve) -> None:
    with Server({"/m": Script(body=BODY, then=wrong)}) as server, pytest.raises(RangeError):
        opened(server.url("/m"), offset=1000, end=None)


def test_a_range_beyond_the_end_is_no_range() -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        assert everything(opened(server.url("/m"), offset=40_000, end=60_000)) == BODY[40_000:]
        with pytest.raises(RangeError):
            opened(server.url("/m"), offset=60_000, end=70_000)


@pytest.mark.parametrize("code", [400, 412, 416])
@pytest.mark.parametrize("chunk", [None, 10_000])
def test_a_server_that_refuses_ranges_by_an_error_is_asked_for_the_whole(
    code: int, chunk: int | None, tmp_path: Path
) -> None:
    with Server({"/m": Script(body=BODY, then=RefusesRanges(code))}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], chunk=chunk)
        bench.part.write_bytes(BODY[:20_000])
        bench.download()


def test_of_an_empty_file_nothing_comes() -> None:
    with Server({"/m": Script(body=b"")}) as server:
        body = opened(server.url("/m"), offset=0, end=10)
        assert (body.total, everything(body)) == (0, b"")


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_server_without_ranges_shows_it(offset: int) -> None:
    with Server({"/m": Script(body=BODY, then=Serve(ranges=False))}) as server:
        body = opened(server.url("/m"), offset=offset, end=3000)
        assert (body.start, body.total, body.ranged) == (0, len(BODY), False)
        body.close()


def test_whether_there_are_ranges_is_not_known_before_one_is_asked_for() -> None:
    with Server({"/m": Script(body=BODY, then=Serve(ranges=False))}) as server:
        assert opened(server.url("/m"), offset=0, end=None).ranged


def test_a_file_is_read_from_the_offset_on(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(BODY)
    body = opened(f"file://{tmp_path}/m", offset=1000, end=3000)
    assert (body.start, body.ranged) == (1000, True)
    assert everything(body)[:2000] == BODY[1000:3000]
