"""Small files that are asked for while the one before comes in: once each, and as if nobody had been early."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fakes.faults import reset, unavailable
from fakes.nginx import nginx
from fakes.node import FakeNode
from fakes.server import Script, Server
from fakes.transfers import asking, everything
from fakes.waiting import until
from pxe_fetch import workers
from pxe_fetch.errors import NetworkError
from pxe_fetch.transport import Request, Transports

BODY = random.Random(8).randbytes(50_000)
NUMBER = 60


@pytest.fixture
def always_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, each piece of work counts as quick."""
    monkeypatch.setattr(workers, "QUICK", 60.0)


def read(transports: Transports, wanted: Request) -> bytes:
    return everything(transports.of(wanted.url).open(wanted))


def test_what_was_asked_for_ahead_is_not_asked_for_again() -> None:
    transports = Transports()
    with Server({"/a": Script(body=BODY), "/b": Script(body=BODY[::-1])}) as server:
        read(transports, asking(server.url("/a")))
        transports.ahead(asking(server.url("/b")))
        until(lambda: len(server.asked_for("/b")) == 1)
        transports.ahead(asking(server.url("/b")))
        assert read(transports, asking(server.url("/b"))) == BODY[::-1]
        assert read(transports, asking(server.url("/b"))) == BODY[::-1]
        assert len(server.asked_for("/b")) == 2
        transports.close()


def test_nobody_waits_for_a_server_that_has_not_answered_yet() -> None:
    transports = Transports()
    with Server({"/a": Script(body=BODY)}) as server, Server({"/b": Script(body=BODY)}) as other:
        transports.ahead(asking(server.url("/a")))
        assert server.asked == []
        read(transports, asking(server.url("/a")))
        transports.ahead(asking(other.url("/b")))
        transports.ahead(asking("http://no host/"))
        time.sleep(0.05)
        assert other.asked == []
        transports.close()


@pytest.mark.parametrize("change", [{"headers": {"X-Site": "b"}}, {"offset": 9}], ids=["fields", "range"])
def test_what_was_asked_for_otherwise_is_asked_for_anew(change: Mapping[str, Any]) -> None:
    transports = Transports()
    with Server({"/a": Script(body=BODY)}) as server:
        read(transports, asking(server.url("/a")))
        transports.ahead(asking(server.url("/a"), headers={"X-Site": "a"}))
        until(lambda: len(server.asked) == 2)
        wanted = asking(server.url("/a"), **{"headers": {"X-Site": "a"}, **change})
        assert read(transports, wanted) == BODY[wanted.offset :]
        asked = server.asked[-1]
        assert (asked.fields["x-site"], asked.range) == (
            wanted.headers["X-Site"],
            f"bytes={wanted.offset}-" if wanted.offset else None,
        )
        transports.close()


def test_what_goes_wrong_ahead_is_told_when_it_is_opened_and_no_sooner() -> None:
    transports = Transports()
    with Server({"/a": Script(body=BODY), "/b": Script(body=BODY, faults=[unavailable(), reset(0.0)])}) as server:
        read(transports, asking(server.url("/a")))
        for _ in range(2):
            transports.ahead(asking(server.url("/b")))
            with pytest.raises(NetworkError):
                read(transports, asking(server.url("/b")))
        assert read(transports, asking(server.url("/b"))) == BODY
        server.down()
        transports.ahead(asking(server.url("/a")))
        with pytest.raises(NetworkError):
            read(transports, asking(server.url("/a")))
        transports.close()


@pytest.mark.usefixtures("always_quick")
def test_many_files_are_each_asked_for_once_and_those_that_are_here_never(tmp_path: Path, node: FakeNode) -> None:
    root = tmp_path / "served"
    root.mkdir()
    bodies = {f"f{number:02}": random.Random(number).randbytes(20_000) for number in range(NUMBER)}
    for name, body in bodies.items():
        (root / name).write_bytes(body)
    here = [f"f{number:02}" for number in range(0, NUMBER, 7)]
    node.out.mkdir(exist_ok=True)
    for name in here:
        (node.out / name).write_bytes(bodies[name])
    with nginx(tmp_path / "nginx", root=root) as server:
        entries = [node.entry(name, server.url(f"/{name}"), body) for name, body in bodies.items()]
        ran = node.run_config(*entries, parallel=1)
        asked = server.asked()
    assert ran.code == 0
    assert sorted(path for *_, path, _, _, _ in asked) == [f"/{name}" for name in bodies if name not in here]
    assert {name: (node.out / name).read_bytes() for name in bodies} == bodies
    assert len({connection for connection, *_ in asked}) == 2


@pytest.mark.usefixtures("always_quick")
def test_a_file_that_fails_takes_nothing_from_the_one_that_was_asked_for_meanwhile(node: FakeNode) -> None:
    bodies = {f"f{number}": random.Random(number).randbytes(3000) for number in range(NUMBER)}
    # Every third is another file at the server.
    scripts = {f"/{name}": Script(body=body if int(name[1:]) % 3 else BODY) for name, body in bodies.items()}
    with Server(scripts) as server:
        entries = [node.entry(name, server.url(f"/{name}"), body, required=False) for name, body in bodies.items()]
        ran = node.run_config(*entries, parallel=1)
    assert ran.code == 2
    assert [*node.files()] == sorted(name for name in bodies if int(name[1:]) % 3)
    for name in bodies:
        artifact = ran.artifact(name)
        right = int(name[1:]) % 3
        assert artifact["attempts"] == (1 if right else 2), artifact
        assert not right or artifact["bytes_received"] == 3000
