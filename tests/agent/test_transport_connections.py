"""Connections that are kept, that die meanwhile, and that somebody holds without saying anything of use."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from fakes.exchange import Exchange, Fault
from fakes.faults import Raw, Serve, Status
from fakes.ports import deaf
from fakes.server import Script, Server
from fakes.stopwatch import Stopwatch
from fakes.transfers import Bench, asking, everything
from pxe_fetch.contract.model import Proxy, RetryPolicy, Timeouts, Tls
from pxe_fetch.deadline import Clock, Deadline
from pxe_fetch.errors import DeadlineError, FetchError, NetworkError, StoppedError
from pxe_fetch.transport import Request, Transports
from pxe_fetch.transport.http import HttpTransport
from pxe_fetch.transport.sockets import LOOK

BODY = random.Random(9).randbytes(50_000)
FEW = RetryPolicy(attempts_without_progress=2)
SHORT = Timeouts(connect=0.4, read=0.6)
QUIET = Raw(b"")  # it goes away without a word
WITHIN = 1.5  # seconds: more than the timeouts and a look of the watcher, less than a second attempt


@dataclass(frozen=True)
class OnceUsed:
    """Served by a connection that is new; one that has served before dies at the request."""

    death: Fault = QUIET

    def answer(self, exchange: Exchange) -> None:
        (Serve() if exchange.asked.connection not in _USED else self.death).answer(exchange)
        _USED.add(exchange.asked.connection)


_USED: set[int] = set()


@dataclass(frozen=True)
class Drips:
    """`head`, then `piece` again and again."""

    head: bytes
    piece: bytes

    def answer(self, exchange: Exchange) -> None:
        exchange.keep = False
        exchange.send(self.head)
        while True:
            exchange.wait(0.05)
            exchange.send(self.piece)


@pytest.mark.parametrize("death", [QUIET, Status(408, {"Connection": "close"})], ids=["silently", "saying 408"])
def test_a_kept_connection_that_died_is_no_failed_attempt(death: Fault, tmp_path: Path) -> None:
    _USED.clear()
    with Server({"/m": Script(body=BODY, then=OnceUsed(death))}) as server:
        transports = Transports()
        for name in "abc":
            bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], name=name, transports=transports)
            assert bench.download().attempts == 1
            assert not bench.events.of("retrying")
        transports.close()
        assert [asked.connection for asked in server.asked] == [1, 1, 2, 2, 3]


def test_a_server_that_closes_what_it_said_it_would_keep_is_asked_by_new_connections() -> None:
    def close_later(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            time.sleep(0.3)

    with listener(close_later) as place:
        transport = Transports().of("http:")
        with Stopwatch() as watch:
            for _ in range(10):
                assert everything(transport.open(asking(f"http://{place}/m"))) == b"ok"
        assert watch.seconds < 3 * 0.3 + WITHIN / 2  # three closes are waited for, not nine


def test_one_dead_connection_has_all_that_are_kept_to_that_place_dropped() -> None:
    with Server({"/m": Script(body=BODY), "/n": Script(body=BODY, faults=[QUIET])}) as server:
        transport = Transports().of(server.url("/m"))
        bodies = [transport.open(asking(server.url("/m"))) for _ in range(4)]
        for body in bodies:
            assert everything(body) == BODY
        for _ in range(3):
            assert everything(transport.open(asking(server.url("/n")))) == BODY
        # One of the four was tried, and a fifth served all that came then.
        assert [asked.connection for asked in server.asked_for("/n")][1:] == [5, 5, 5]
        transport.close()


def test_a_new_connection_that_dies_is_a_failed_attempt(tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[QUIET])}) as server:
        assert Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download().attempts == 2


def test_a_kept_connection_that_dies_within_its_answer_is_a_failed_attempt(tmp_path: Path) -> None:
    with Server({"/a": Script(body=BODY), "/m": Script(body=BODY, faults=[Raw(b"HTTP/1.1 200")])}) as server:
        transports = Transports()
        for name, attempts in (("a", 1), ("m", 2)):
            bench = Bench(body=BODY, folder=tmp_path, urls=[server.url(f"/{name}")], name=name, transports=transports)
            assert bench.download().attempts == attempts
        transports.close()


def test_a_kept_connection_that_has_gone_silent_is_replaced() -> None:
    request = asking("")
    with Server({"/a": Script(body=BODY), "/m": Script(body=BODY, faults=[Silent()])}) as server:
        transport = Transports().of(server.url("/a"))
        assert everything(transport.open(asking(server.url("/a")))) == BODY
        late = Request(url=server.url("/m"), timeouts=SHORT, deadline=request.deadline)
        assert everything(transport.open(late)) == BODY
        assert [asked.connection for asked in server.asked] == [1, 1, 2]
        transport.close()


@dataclass(frozen=True)
class Silent:
    """No answer but `head`, for as long as the client waits."""

    head: bytes = b""

    def answer(self, exchange: Exchange) -> None:
        exchange.send(self.head)
        exchange.wait(60)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header byte by byte": Drips(OK + b"X: ", b"y"),
    "header fields": Drips(OK, b"X: y\r\n"),
    "interim answers": Drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a chunk's extension": Drips(CHUNKED + b"5;x=", b"y"),
    "a chunk's size": Drips(CHUNKED, b"0"),
    "trailers": Drips(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "the end of a connection that is not kept": Silent(OK + b"Connection: close\r\nContent-Length: 50000\r\n\r\n"),
}


@pytest.mark.parametrize("fault", ENDLESS.values(), ids=ENDLESS.keys())
def test_without_a_byte_of_the_body_whatever_comes_is_silence(fault: Fault, tmp_path: Path) -> None:
    with Server({"/m": Script(body=BODY, faults=[fault])}) as server:
        bench = Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")], timeouts=SHORT)
        with Stopwatch() as watch:
            assert bench.download().attempts == 2
        assert watch.seconds < WITHIN
        assert "was silent for 0.6 s" in str(bench.events.of("retrying")[0]["error"])


@pytest.mark.parametrize("end", [b"Content-Length: 9000", b"Connection: close"], ids=["kept", "closed afterwards"])
@pytest.mark.parametrize("status", [b"302 Found\r\nLocation: /n", b"503 No"], ids=["redirect", "refusal"])
def test_text_that_nobody_wants_is_not_waited_for(status: bytes, end: bytes, tmp_path: Path) -> None:
    text = Drips(b"HTTP/1.1 " + status + b"\r\n" + end + b"\r\n\r\n", b"x")
    with Server({"/m": Script(body=BODY, faults=[text]), "/n": Script(body=BODY)}) as server:
        with Stopwatch() as watch:
            Bench(body=BODY, folder=tmp_path, urls=[server.url("/m")]).download()
        assert watch.seconds < 2 * WITHIN


@contextmanager
def listener(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """Host and port of a server that does `act` with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=act, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def drip_a_handshake(connection: socket.socket) -> None:
    """A record of TLS that never is whole."""
    with suppress(OSError), connection:
        connection.sendall(b"\x16\x03\x03\x40\x00")
        while True:
            time.sleep(0.1)
            connection.sendall(b"x")


def say_nothing(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        time.sleep(10)


@pytest.mark.parametrize("act", [drip_a_handshake, say_nothing])
def test_a_handshake_has_to_be_over_within_the_connect_timeout(
    act: Callable[[socket.socket], None],
) -> None:
    with listener(act) as place:
        deadline = Deadline(clock=Clock(), stop=Event(), at=time.monotonic() + 60)
        with Stopwatch() as watch, pytest.raises(NetworkError, match=rf"no connection to {place} within 0\.4 s"):
            Transports().of("https:").open(Request(url=f"https://{place}/m", timeouts=SHORT, deadline=deadline))
        assert watch.seconds < WITHIN


@pytest.mark.parametrize("where", ["header", "body", "handshake"])
@pytest.mark.parametrize("how", ["stop", "deadline"])
def test_a_stop_and_a_deadline_are_seen_within_half_a_second_while_nothing_comes(where: str, how: str) -> None:
    began = time.monotonic()
    stop = Event()
    deadline = Deadline(clock=Clock(), stop=stop, at=began + (0.3 if how == "deadline" else 60))
    patient = Timeouts(connect=30, read=30)
    silence = Silent() if where == "header" else Serve(until=0.5, then="stall")
    with listener(say_nothing) as place, Server({"/m": Script(body=BODY, then=silence)}) as server:
        url = f"https://{place}/m" if where == "handshake" else server.url("/m")
        if how == "stop":
            threading.Timer(0.3, stop.set).start()
        came = 0
        error = StoppedError if how == "stop" else DeadlineError
        with Stopwatch() as watch, pytest.raises(error):  # noqa: PT012  it may come in either
            body = Transports().of(url).open(Request(url=url, timeouts=patient, deadline=deadline))
            view = memoryview(bytearray(8192))
            while count := body.readinto(view):
                came += count
        assert watch.seconds < 0.3 + 0.5
        assert came == (len(BODY) // 2 if where == "body" else 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("where", ["look-up", "connect", "handshake", "proxy", "proxy's handshake", "ftp", "tftp"])
def test_a_stop_ends_any_wait_for_a_connection_within_half_a_second(
    where: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def slow(host: object, *args: object, **kwargs: object) -> object:
        if host == b"slow.example" and not kwargs.get("flags"):
            time.sleep(5)
        return real(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    stop = Event()
    deadline = Deadline(clock=Clock(), stop=stop, at=time.monotonic() + 60)
    patient = Timeouts(connect=30, read=30)
    with listener(say_nothing) as place, deaf() as (_, port), silent_udp() as udp:
        urls = {"look-up": "http://slow.example/m", "connect": f"http://127.0.0.1:{port}/m", "ftp": f"ftp://{place}/m"}
        url = urls.get(where, f"tftp://{udp}/m" if where == "tftp" else f"https://{place}/m")
        proxy = Proxy(https=f"http{'s' if 'handshake' in where else ''}://{place}") if "proxy" in where else Proxy()
        threading.Timer(0.3, stop.set).start()
        request = Request(url=url, timeouts=patient, deadline=deadline)
        with Stopwatch() as watch, pytest.raises(StoppedError):  # noqa: PT012  two ways to ask
            if method == "POST" and url.startswith("http"):
                HttpTransport(tls=Tls(), proxy=proxy).post(request, b"{}")
            else:
                Transports(proxy=proxy).of(url).open(request)
        assert watch.seconds < 0.3 + 0.5


@contextmanager
def silent_udp() -> Iterator[str]:
    """Host and port of a socket that takes packets and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_names_that_cannot_be_looked_up_in_time_do_not_outlast_the_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def slow(host: object, *args: object, **kwargs: object) -> object:
        if b"slow" in (host if isinstance(host, bytes) else b""):
            if not kwargs.get("flags"):
                time.sleep(5)
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return real(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    deadline = Deadline(clock=Clock(), stop=Event(), at=time.monotonic() + 60)
    for url in ("http://slow.example/m", "ftp://slow.example/m"):
        unresolved = pytest.raises(NetworkError, match=r"slow\.example\S* cannot be resolved: no answer within 0\.4 s")
        with Stopwatch() as watch, unresolved:
            Transports().of(url).open(Request(url=url, timeouts=SHORT, deadline=deadline))
        assert watch.seconds < WITHIN


def test_all_addresses_of_a_host_share_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six addresses the last one answers, and the others neither do nor refuse."""
    with Server({"/m": Script(body=BODY)}) as server, deaf() as place:
        dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", place)
        alive = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        answers = {b"many.example": [dead] * 2 + [alive], b"none.example": [dead] * 6}

        def look_up(host: bytes, *_args: object, **kwargs: object) -> object:
            if kwargs.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not known")
            return answers[host]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        deadline = Deadline(clock=Clock(), stop=Event(), at=time.monotonic() + 60)
        timeouts = Timeouts(connect=1.0, read=5.0)
        transport = Transports().of("http:")
        body = transport.open(Request(url="http://many.example/m", timeouts=timeouts, deadline=deadline))
        assert everything(body) == BODY
        with Stopwatch() as watch:  # the next connection begins with the address that answered (RFC 8305, 4)
            Transports().of("http:").open(Request(url="http://many.example/m", timeouts=timeouts, deadline=deadline))
        assert watch.seconds < LOOK
        unreachable = pytest.raises(FetchError, match=r"no connection to none\.example within 1 s")
        with Stopwatch() as watch, unreachable:
            transport.open(Request(url="http://none.example/m", timeouts=timeouts, deadline=deadline))
        assert watch.seconds < WITHIN


def test_an_address_that_connects_and_then_does_not_answer_is_tried_last_from_then_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two addresses the first is of a balancer that has no server left."""
    with Server({"/m": Script(body=BODY)}) as server, listener(lambda connection: connection.close()) as place:
        host, _, port = place.partition(":")
        bad = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, int(port)))
        good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))

        def look_up(_host: bytes, *_args: object, **kwargs: object) -> object:
            if kwargs.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not known")
            return [bad, good]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        bench = Bench(body=BODY, folder=tmp_path, urls=["http://balanced.example/m"])
        assert bench.download().attempts == 2


def test_an_address_of_a_family_that_the_kernel_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        unknown = (socket.AF_DECnet, socket.SOCK_STREAM, 6, "", ("::1", server.port))
        alive = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))

        def look_up(_host: bytes, *_args: object, **kwargs: object) -> object:
            if kwargs.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not known")
            return [unknown, alive]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        deadline = Deadline(clock=Clock(), stop=Event(), at=time.monotonic() + 60)
        request = Request(url="http://two.example/m", timeouts=Timeouts(), deadline=deadline)
        assert everything(Transports().of("http:").open(request)) == BODY


def test_a_refusal_keeps_the_connection_and_a_long_text_does_not() -> None:
    short, long = Status(404), Status(404, text=b"x" * 100_000)
    with Server({"/s": Script(then=short), "/l": Script(then=long), "/m": Script(body=BODY)}) as server:
        transport = Transports().of(server.url("/m"))
        for path in ("/s", "/m", "/l", "/m"):
            with suppress(NetworkError):
                everything(transport.open(asking(server.url(path))))
        assert [asked.connection for asked in server.asked] == [1, 1, 1, 2]
        transport.close()
