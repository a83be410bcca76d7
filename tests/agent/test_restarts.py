"""Real servers that end in the middle of a file and are started again: the transfer goes on where it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.daemons import tftpd, vsftpd
from fakes.nginx import nginx
from fakes.transfers import Bench, EventRecorder, QuickClock
from pxe_fetch.contract.model import Tls

BODY = random.Random(31).randbytes(500_000)


@dataclass
class Ending(EventRecorder):
    """Ends the server from inside the transfer: when its first bytes are told of, or at its start."""

    end: Callable[[], None] = lambda: None
    when: str = "progress"
    ended: list[int] = field(default_factory=list)

    def started(self, name: str, *, url: str, offset: int, total: int | None, **_others: str | None) -> None:
        super().started(name, url=url, offset=offset, total=total)
        self._ends("started", offset)

    def progress(self, name: str, *, received: int, total: int | None) -> None:
        super().progress(name, received=received, total=total)
        if received:
            self._ends("progress", received)

    def _ends(self, what: str, received: int) -> None:
        if what == self.when and not self.ended:
            self.ended.append(received)
            self.end()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "m.bin").write_bytes(BODY)
    (folder / "m.bin").chmod(0o644)
    folder.chmod(0o555)  # vsftpd serves no one a root folder that they may write to
    return folder


def after(start: Callable[[], object]) -> QuickClock:
    """The second wait of the transfer has the server start again: until then, it is refused."""

    def during(number: int) -> None:
        if number == 1:
            start()

    return QuickClock(during=during)


def check_that_it_went_on(bench: Bench, events: Ending) -> None:
    received = bench.download()
    assert received.bytes_received == len(BODY)  # nothing came twice
    assert 0 < events.ended[0] < len(BODY)
    assert received.attempts >= 3
    assert int(str(events.of("resumed")[0]["offset"])) >= events.ended[0]
    assert "refused the connection" in str(events.of("retrying")[1]["error"])


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("chunk", [None, 64 * 1024], ids=["whole", "chunks"])
def test_nginx(secure: bool, chunk: int | None, root: Path, tmp_path: Path) -> None:  # noqa: FBT001
    authority = Authority(tmp_path / "ca")
    certificate = authority.issue("localhost", alternative="DNS:localhost")
    with nginx(tmp_path / "nginx", root=root, certificate=certificate) as server:
        events = Ending(end=server.kill)
        bench = Bench(
            body=BODY,
            folder=tmp_path / "node",
            urls=[server.secure_url("/slow/m.bin") if secure else server.url("/slow/m.bin")],
            chunk=chunk,
            streams=1,
            tls=Tls(ca_file=str(authority.certificate)),
            events=events,
            clock=after(server.start),
        )
        check_that_it_went_on(bench, events)


def test_vsftpd(root: Path, tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        slow = "anon_max_rate=200000"
        server = first.enter_context(vsftpd(tmp_path / "vsftpd", root=root, more=slow))

        def start() -> None:
            second.enter_context(vsftpd(tmp_path / "vsftpd", root=root, more=slow, port=server.port))

        events = Ending(end=first.close)
        bench = Bench(
            body=BODY, folder=tmp_path / "node", urls=[server.url("/m.bin")], events=events, clock=after(start)
        )
        check_that_it_went_on(bench, events)


def test_tftpd_begins_again(root: Path, tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        server = first.enter_context(tftpd(root))
        events = Ending(end=first.close, when="started")
        clock = after(lambda: second.enter_context(tftpd(root, port=server.port)))
        bench = Bench(body=BODY, folder=tmp_path / "node", urls=[server.url("/m.bin")], events=events, clock=clock)
        received = bench.download()
    assert received.attempts >= 3
    assert [told["offset"] for told in events.of("started")] == [0, 0]
