"""By TFTP: from a real server, and from one that loses, doubles and swaps packets on purpose."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemons import Tftpd, tftpd
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.stopwatch import Stopwatch
from fakes.tftp import LossyTftp, Trouble
from fakes.transfers import Bench
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.contract.url import parse
from pxe_fetch.errors import (
    DeadlineError,
    IntegrityError,
    NetworkError,
    NotFoundError,
    PolicyError,
    RefusedError,
    StoppedError,
)

BODY = random.Random(11).randbytes(300_000)
FEW = RetryPolicy(attempts_without_progress=3)
ONCE = RetryPolicy(attempts_without_progress=1)
BRISK = Timeouts(connect=1.0, read=1.0, min_rate=1)  # a lost packet is sent again after 0.2 s


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tftp")
    for name, body in {"m.bin": BODY, "a file.bin": BODY, "empty": b"", "block": BODY[:1468], "secret": BODY}.items():
        (folder / name).write_bytes(body)
        (folder / name).chmod(0o600 if name == "secret" else 0o644)
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Tftpd]:
    with tftpd(root) as running:
        yield running


def test_fetches_from_a_real_server(server: Tftpd, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")], size=len(BODY))
    assert bench.download().attempts == 1
    assert bench.events.of("started")[0]["total"] == len(BODY)


@pytest.mark.parametrize("path", ["/a%20file.bin", "/m.bin;mode=octet"])
def test_names_are_decoded_and_binary_mode_may_be_said(server: Tftpd, path: str, tmp_path: Path) -> None:
    Bench(body=BODY, folder=tmp_path, urls=[server.url(path)]).download()


@pytest.mark.parametrize(("name", "length"), [("empty", 0), ("block", 1468)])
def test_a_file_that_ends_with_a_block_ends(server: Tftpd, name: str, length: int, tmp_path: Path) -> None:
    Bench(body=BODY[:length], folder=tmp_path, urls=[server.url(f"/{name}")], size=length).download()


@pytest.mark.parametrize("refused", ["blksize", "tsize", "timeout"])
def test_does_without_an_option_that_the_server_refuses(root: Path, refused: str, tmp_path: Path) -> None:
    with tftpd(root, "--refuse", refused) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")]).download()


def test_a_file_of_more_than_65535_blocks_comes_whole(tmp_path: Path) -> None:
    body = random.Random(12).randbytes(65_700 * 8 + 7)
    with LossyTftp(body, Trouble(block=8, window=16, packets={65_536: "drop", 65_540: "double"})) as server:
        assert Bench(body=body, folder=tmp_path, urls=[server.url], size=len(body)).download().attempts == 1


def test_a_part_that_an_earlier_run_left_is_fetched_anew(server: Tftpd, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")])
    bench.part.write_bytes(BODY[:100_000])
    assert bench.download().bytes_received == len(BODY)


def test_another_mirror_resumes_what_tftp_cannot(server: Tftpd, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY)}) as web:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin"), web.url("/m")])
        bench.part.write_bytes(BODY[:100_000])
        assert bench.download().bytes_received == len(BODY) - 100_000


def test_a_missing_file_is_told_so(server: Tftpd, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="answered error 1"):
        Bench(body=BODY, folder=tmp_path, urls=[server.url("/absent")]).download()


def test_a_file_that_may_not_be_read_is_final(server: Tftpd, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/secret")])
    with pytest.raises(RefusedError, match="answered error 2"):
        bench.download()
    assert bench.clock.waits == []


def test_a_whole_run_takes_relative_urls_below_a_tftp_base(server: Tftpd, node: FakeNode) -> None:
    ran = node.run_config(
        node.entry("m", "m.bin", BODY, base_url=server.url("/")), node.entry("gone", server.url("/no"), BODY)
    )
    assert ran.code == Exit.NETWORK
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("gone")["cause"] == "not-found"


@pytest.mark.parametrize("block", [1, 16, 205])  # the last is the last
@pytest.mark.parametrize("what", ["drop", "double", "late"])
@pytest.mark.parametrize("window", [1, 16])
def test_overcomes_what_happens_to_a_packet(what: str, block: int, window: int, tmp_path: Path) -> None:
    trouble = Trouble(packets={block: what}, window=window)
    with LossyTftp(BODY, trouble) as server:
        received = Bench(body=BODY, folder=tmp_path, urls=[server.url], timeouts=BRISK).download()
    assert received.attempts == 1


def test_lost_acknowledgements_are_sent_again(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(deaf_to=frozenset({0, 3, 50, 120}))) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url], timeouts=BRISK).download().attempts == 1


def test_a_gap_is_told_at_once_and_once(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(packets={20: "drop"}, window=16)) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url]).download()
    assert server.acks.count(19) == 1
    assert server.resent_for_silence == 0


def test_doubled_packets_do_not_double_the_traffic(tmp_path: Path) -> None:
    blocks = len(BODY) // 1468 + 1
    with LossyTftp(BODY, Trouble(packets=dict.fromkeys(range(1, blocks + 1), "double"))) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url]).download()
    assert blocks < len(server.acks) < 1.2 * blocks


def test_a_request_that_gets_lost_is_sent_again(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(requests_lost=2)) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url], timeouts=BRISK).download().attempts == 1
    assert len(server.requests) == 3


def test_packets_from_elsewhere_are_not_taken(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(stranger=True)) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1


def test_a_server_without_options_is_asked_in_plain_blocks(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(options=False)) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url]).download()
    assert len(server.requests) == 1


def test_a_server_that_cannot_stand_options_is_asked_without(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(refuses_options=True)) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1
    assert b"blksize" in server.requests[0]
    assert b"blksize" not in server.requests[1]


def test_block_and_window_fit_an_ethernet_frame(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(window=8)) as server:
        Bench(body=BODY, folder=tmp_path, urls=[server.url]).download()
    assert server.requests[0].split(b"\0")[2:] == [
        *[b"octet", b"blksize", b"1468", b"tsize", b"0", b"timeout", b"1", b"windowsize", b"16", b""]
    ]


@pytest.mark.parametrize(
    "options",
    [
        b"blksize\x009000\0",
        b"blksize\x007\0",
        b"windowsize\x0017\0",
        b"windowsize\x000\0",
        b"timeout\x009\0",
        b"multicast\0a\0",
        b"blksize\0",
        b"tsize\x00-1\0",
        b"tsize\x001\0tsize\x001\0",
        b"blksize\x001468",
    ],
)
def test_an_answer_with_other_options_than_asked_for_is_not_taken(options: bytes, tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(answer=b"\0\6" + options)) as server:
        with pytest.raises(NetworkError, match="options that were not asked for"):
            Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=ONCE).download()
        assert server.error_from_client() == 8


@pytest.mark.parametrize("answer", [b"", b"\0", b"\0\3\0\2late", b"\0\3\0\1" + bytes(513), b"\0\4\0\1", b"\xff" * 100])
def test_what_is_not_tftp_is_not_taken(answer: bytes, tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(answer=answer)) as server, pytest.raises(NetworkError, match="sent what is not TFTP"):
        Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=ONCE).download()


def test_an_error_in_the_middle_is_told_and_another_attempt_made(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(error_at=50, times=1)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url])
        assert bench.download().attempts == 2
    assert "error 0 (the disk is on fire)" in str(bench.events.of("retrying")[0]["error"])


def test_a_server_that_goes_silent_is_given_up_and_asked_again(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(silent_after=50, times=1)) as server:
        timeouts = Timeouts(connect=2.0, read=0.3, min_rate=1)
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], timeouts=timeouts)
        assert bench.download().attempts == 2
    assert "was silent for 0.3 s" in str(bench.events.of("retrying")[0]["error"])


def test_a_silent_server_is_left_when_told_to_stop(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(silent_after=50)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url])
        server.on_silence = bench.stop.set
        with pytest.raises(StoppedError):
            bench.download()


def test_the_deadline_ends_a_transfer(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(silent_after=50)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=RetryPolicy(deadline=0.5))
        with pytest.raises(DeadlineError):
            bench.download()


def test_a_server_is_told_when_its_file_is_not_wanted(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble()) as server:
        with pytest.raises(IntegrityError):
            Bench(body=BODY, folder=tmp_path, urls=[server.url], size=5, retry=ONCE).download()
        assert server.error_from_client() == 0


def test_nobody_listening_is_told_at_once(tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=["tftp://127.0.0.1:9/m"], retry=FEW)
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9 refused the connection"):
        bench.download()


def test_no_answer_at_all_is_told(tmp_path: Path) -> None:
    with LossyTftp(BODY, Trouble(requests_lost=99)) as server:
        timeouts = Timeouts(connect=0.3, read=5.0)
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=ONCE, timeouts=timeouts)
        with pytest.raises(NetworkError, match=r"no answer from .* within 0.3 s"):
            bench.download()


@pytest.mark.parametrize(
    "path", ["", "/", "/folder/", "/a%00b", "/a%0d%0ab", "/m?x=1", "/m;mode=netascii", "/" + "x" * 500]
)
def test_urls_that_name_no_file_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        Bench(body=BODY, folder=tmp_path, urls=[f"tftp://127.0.0.1:9{path}"]).download()


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one_and_is_tried_last_from_then_on(
    server: Tftpd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where a name has an address of IPv6, and the network loses its packets."""
    with socket.socket(type=socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        real = parse(server.url("/m.bin"))
        ports = (deaf.getsockname()[1], real.port)
        addresses = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port)) for port in ports]

        def look_up(_host: bytes, *_args: object, **kwargs: object) -> object:
            if kwargs.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not known")
            return addresses

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with Stopwatch() as watch:
            for name in ("one", "two", "three"):
                url = f"tftp://two-addresses.example{real.path}"
                bench = Bench(body=BODY, folder=tmp_path, urls=[url], name=name, retry=ONCE, timeouts=BRISK)
                assert bench.download().attempts == 1
        assert BRISK.connect / 2 < watch.seconds < 2 * BRISK.connect
