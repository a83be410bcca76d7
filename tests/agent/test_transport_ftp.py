"""By FTP: from a real server, and from one that breaks its promises on purpose."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemons import Ftpd, vsftpd
from fakes.ftp import Breach, BreakingFtp
from fakes.node import FakeNode
from fakes.stopwatch import Stopwatch
from fakes.transfers import Bench, asking, everything
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.model import RetryPolicy, Timeouts
from pxe_fetch.errors import (
    DeadlineError,
    NetworkError,
    NotFoundError,
    PolicyError,
    RefusedError,
    SilentError,
    StoppedError,
)
from pxe_fetch.transport import Transports

BODY = random.Random(13).randbytes(3_000_000)
ONCE = RetryPolicy(attempts_without_progress=1)
BRISK = Timeouts(connect=2.0, read=0.3, min_rate=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ftp")
    for name in ("m.bin", "a file;1.bin", "gr\xfc\xdf.bin", "secret"):
        (folder / name).write_bytes(BODY)
        (folder / name).chmod(0o600 if name == "secret" else 0o644)
    folder.chmod(0o555)  # vsftpd serves no one a root folder that they may write to
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ftpd]:
    with vsftpd(tmp_path_factory.mktemp("vsftpd") / "run", root=root) as running:
        yield running


def test_fetches_from_a_real_server(server: Ftpd, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")], size=len(BODY))
    assert bench.download().attempts == 1
    assert bench.events.of("started")[0]["total"] == len(BODY)


@pytest.mark.parametrize("path", ["/a%20file%3B1.bin", "/gr%C3%BC%C3%9F.bin", "/m.bin;type=i"])
def test_names_are_the_bytes_that_the_url_encodes(server: Ftpd, path: str, tmp_path: Path) -> None:
    Bench(body=BODY, folder=tmp_path, urls=[server.url(path)]).download()


@pytest.mark.parametrize("slash", ["/", "%2F"])
def test_a_second_slash_makes_a_path_absolute(server: Ftpd, root: Path, slash: str, tmp_path: Path) -> None:
    path = f"/{slash}{str(root / 'm.bin').removeprefix('/')}"  # this server's root directory is the machine's
    Bench(body=BODY, folder=tmp_path, urls=[server.url(path)]).download()


def test_resumes_to_the_byte(server: Ftpd, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")])
    bench.part.write_bytes(BODY[:1_234_567])
    assert bench.download().bytes_received == len(BODY) - 1_234_567
    assert "REST 1234567" in server.commands()


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(server: Ftpd, tmp_path: Path) -> None:
    bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m.bin")])
    bench.part.write_bytes(BODY + b"x")
    assert bench.download().bytes_received == len(BODY)


def test_files_one_after_the_other_share_a_connection(server: Ftpd, tmp_path: Path) -> None:
    transports = Transports()
    before = server.connections()
    for number in range(3):
        urls = [server.url("/absent"), server.url("/m.bin")]
        Bench(body=BODY, folder=tmp_path, urls=urls, name=f"m{number}", transports=transports).download()
    transports.close()
    assert server.connections() == before + 1


@pytest.mark.parametrize("name", ["absent", "secret"])
def test_a_missing_file_is_told_so(server: Ftpd, name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="answered 550 "):
        Bench(body=BODY, folder=tmp_path, urls=[server.url(f"/{name}")]).download()


def test_a_server_that_wants_a_password_is_final(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(login="530 who?")) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url])
        with pytest.raises(RefusedError, match="answered 530 "):
            bench.download()
    assert bench.clock.waits == []


def test_a_whole_run_takes_ftp(server: Ftpd, node: FakeNode) -> None:
    ran = node.run_config(
        node.entry("m", "m.bin", BODY, base_url=server.url("/")), node.entry("gone", server.url("/no"), BODY)
    )
    assert ran.code == Exit.NETWORK
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("gone")["cause"] == "not-found"


@pytest.mark.parametrize(
    ("final", "reset"),
    [("426 cut", False), ("426 cut", True), ("226 done", False), ("421 bye", False), ("551 no", False)],
)
def test_a_body_that_is_cut_is_resumed(final: str, reset: bool, tmp_path: Path) -> None:  # noqa: FBT001
    with BreakingFtp(BODY, Breach(cut_at=1_000_000, final=final, reset=reset, times=1)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url])
        received = bench.download()
    assert received.attempts == 2
    assert received.bytes_received <= len(BODY) + (1_000_000 if reset else 0)  # a reset throws away what was on its way
    assert "SIZE m" in server.commands


def test_a_stall_in_the_middle_is_given_up_and_resumed(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(cut_at=1_000_000, stall=True, times=1)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], timeouts=BRISK)
        received = bench.download()
    assert (received.attempts, received.bytes_received) == (2, len(BODY))
    assert "was silent for 0.3 s" in str(bench.events.of("retrying")[0]["error"])


def test_a_stalling_server_is_left_when_told_to_stop(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(cut_at=1_000_000, stall=True)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url])
        server.on_stall = bench.stop.set
        with pytest.raises(StoppedError):
            bench.download()


def test_the_deadline_ends_the_wait_for_a_greeting(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(welcome=b"")) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=RetryPolicy(deadline=0.4))
        with pytest.raises(DeadlineError):
            bench.download()


def test_data_comes_from_the_server_itself_whatever_address_it_names(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(pasv_host="192,0,2,1")) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1


def test_a_server_that_cannot_resume_sends_all_of_it(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(rest="502 what?", size="500 what?")) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url])
        bench.part.write_bytes(BODY[:1000])
        assert bench.download().bytes_received == len(BODY)


def test_a_kept_connection_that_ended_is_no_failure(tmp_path: Path) -> None:
    transports = Transports()
    with BreakingFtp(BODY, Breach(goodbye_after=1)) as server:
        for number in range(3):
            bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], name=f"m{number}", transports=transports)
            assert bench.download().attempts == 1
        transports.close()
    assert server.connections == 3


def test_a_kept_connection_that_has_gone_silent_is_no_failure_and_is_waited_for_once(tmp_path: Path) -> None:
    """As where a firewall has forgotten it; the others that were kept are dropped with it."""
    transports = Transports()
    with BreakingFtp(BODY, Breach(mute_after=1)) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], transports=transports)
        transport = transports.of(server.url)
        for body in [transport.open(asking(server.url)) for _ in range(4)]:
            assert everything(body) == BODY
        bench.timeouts = Timeouts(read=0.5)
        began = time.monotonic()
        with Stopwatch() as watch:
            assert bench.download().attempts == 1
        assert time.monotonic() - began > 0.4
        assert watch.seconds < 0.9
        transports.close()
    assert server.connections == 5


@pytest.mark.parametrize("size", ["213 300000", "502 no"])
def test_a_server_that_waits_for_the_end_of_the_data_connection_is_not_waited_for(size: str, tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(lingers=True, size=size.replace("300000", str(len(BODY))))) as server:
        with Stopwatch() as watch:
            assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1
        assert watch.seconds < 0.9


def test_a_reply_ends_with_its_code_and_a_blank(tmp_path: Path) -> None:
    welcome = b"220-hello\r\n220-x\r\n 220 not the end\r\n220x neither\r\n220 ready\r\n"
    with BreakingFtp(BODY, Breach(welcome=welcome)) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1


def test_a_server_that_is_ready_in_a_while_is_waited_for(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(welcome=b"120 ready in 1 minute\r\n220 ready\r\n")) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1


@pytest.mark.parametrize(
    "breach", [Breach(welcome=b"120 ready in 1 minute\r\n", is_ready=False), Breach(delay=0.2)], ids=["never", "late"]
)
def test_a_server_has_the_read_timeout_for_all_that_it_says_before_the_first_byte(
    breach: Breach, tmp_path: Path
) -> None:
    with BreakingFtp(BODY, breach) as server, Stopwatch() as watch:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=ONCE, timeouts=BRISK)
        with pytest.raises(SilentError, match=r"was silent for 0\.3 s"):
            bench.download()
    assert watch.seconds < 3 * BRISK.read


def test_a_file_that_is_whole_needs_no_last_word(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach(final=None)) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url]).download().attempts == 1


@pytest.mark.parametrize(
    ("breach", "error", "message"),
    [
        (Breach(welcome=b"421 too many\r\n"), NetworkError, r"answered 421 \(too many\)"),
        (Breach(welcome=b"SSH-2.0-OpenSSH_9.2\r\n"), NetworkError, "sent what is not FTP"),
        (Breach(login="530 Sorry, the maximum number of clients (1) are already connected"), NetworkError, "530"),
        (Breach(login="530 Login incorrect."), RefusedError, "answered 530"),
        (Breach(retr="450 busy"), NetworkError, "answered 450"),
        (Breach(retr="550 none"), NotFoundError, "answered 550"),
        (Breach(retr="553 no such names"), RefusedError, "answered 553"),
        (Breach(retr="226 nothing"), NetworkError, "sent what is not FTP"),
        (Breach(welcome=b"HTTP/1.1 400 Bad\r\n"), NetworkError, "sent what is not FTP"),
        (Breach(welcome=b"220-\r\n" * 20_000), NetworkError, "sent what is not FTP"),
        (Breach(welcome=b"x" * 20_000), NetworkError, "sent what is not FTP"),
        (Breach(pasv_host="no address"), NetworkError, "sent what is not FTP"),
        (Breach(pasv_host="127,0,0,1,999"), NetworkError, "127.0.0.1"),
        (Breach(welcome=b""), SilentError, "was silent for 0.3 s"),
    ],
)
def test_the_error_names_the_cause(breach: Breach, error: type[Exception], message: str, tmp_path: Path) -> None:
    with BreakingFtp(BODY, breach) as server, pytest.raises(error, match=message) as caught:
        Bench(body=BODY, folder=tmp_path, urls=[server.url], retry=ONCE, timeouts=BRISK).download()
    assert type(caught.value) is error


def test_nobody_listening_is_told(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9 refused the connection"):
        Bench(body=BODY, folder=tmp_path, urls=["ftp://127.0.0.1:9/m"], retry=ONCE).download()


@pytest.mark.parametrize("path", ["", "/", "/folder/", "/a%0d%0aDELE%20b", "/a%00b", "/m?x=1", "/m;type=a"])
def test_urls_that_name_no_file_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        Bench(body=BODY, folder=tmp_path, urls=[f"ftp://127.0.0.1:9{path}"]).download()


def test_no_password_is_sent_in_the_clear(tmp_path: Path) -> None:
    with BreakingFtp(BODY, Breach()) as server:
        url = server.url.replace("//", "//user:secret@")
        with pytest.raises(PolicyError, match="anonymous") as caught:
            Bench(body=BODY, folder=tmp_path, urls=[url]).download()
    assert server.connections == 0
    assert "secret" not in str(caught.value)
