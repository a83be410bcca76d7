"""What a run remembers of its hosts: which did not answer, and which serve this node few streams at once."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.exchange import Fault
from fakes.faults import Hang, Status, stall
from fakes.nginx import nginx
from fakes.node import FakeNode
from fakes.ports import deaf
from fakes.server import Script, Server
from fakes.stopwatch import Stopwatch
from fakes.transfers import Bench
from pxe_fetch.contract.model import Timeouts

CHUNK = 64 * 1024
BODY = random.Random(12).randbytes(60 * CHUNK)
FILES = 24
BOTH = pytest.mark.parametrize("chunk", [None, CHUNK], ids=["whole", "chunks"])


@contextmanager
def mute() -> Iterator[tuple[str, int]]:
    """An address of a UDP service that answers nothing."""
    with socket.socket(type=socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()


@pytest.mark.parametrize("kind", ["http", "https", "ftp", "tftp", "proxy"])
def test_a_mirror_that_is_off_is_waited_for_once_in_a_run(kind: str, node: FakeNode) -> None:
    bodies = {f"/{number}": b"%d" % number for number in range(FILES)}
    scripts = {path: Script(body=body) for path, body in bodies.items()}
    with mute() if kind == "tftp" else deaf() as (host, port), Server(scripts) as good:
        first = f"http://localhost:{good.port}" if kind == "proxy" else f"{kind}://{host}:{port}"
        proxy = {"proxy": {"http": f"http://{host}:{port}", "no_proxy": ["127.0.0.1"]}} if kind == "proxy" else {}
        entries = [
            {key: value for key, value in node.entry(path[1:], "", body).items() if key != "url"}
            | {"urls": [first + path, good.url(path)]}
            for path, body in bodies.items()
        ]
        defaults = {"mirror_order": "listed", "timeouts": {"connect": "1s", "read": "2s"}, "retry": {"base": "10ms"}}
        with Stopwatch() as watch:
            ran = node.run_config(*entries, defaults=defaults, parallel=2, **proxy)
        assert ran.code == 0
        assert watch.seconds < 5
        assert sum(ran.artifact(path[1:])["attempts"] == 1 for path in bodies) >= FILES - 2


@pytest.mark.parametrize("sent", [0, 1], ids=["no byte", "one byte"])
def test_a_mirror_that_is_silent_after_its_header_is_waited_for_once_in_a_run(sent: int, node: FakeNode) -> None:
    """As behind a path that loses long packets."""
    bodies = {f"/{number}": b"%d" % (1000 + number) for number in range(FILES)}
    silent = {path: Script(body=body, then=stall(sent / len(body))) for path, body in bodies.items()}
    good_ones = {path: Script(body=body) for path, body in bodies.items()}
    with Server(silent) as bad, Server(good_ones) as good:
        entries = [
            {key: value for key, value in node.entry(path[1:], "", body).items() if key != "url"}
            | {"urls": [bad.url(path), good.url(path)]}
            for path, body in bodies.items()
        ]
        defaults = {"mirror_order": "listed", "timeouts": {"read": "1s"}, "retry": {"base": "10ms"}}
        ran = node.run_config(*entries, defaults=defaults, parallel=2)
        assert ran.code == 0
        assert len(bad.asked) <= 3


def test_a_mirror_that_was_silent_is_asked_again_where_the_others_fail(node: FakeNode) -> None:
    scripts = {"/a": Script(body=b"a", then=Hang()), "/b": Script(body=b"b")}
    with Server(scripts) as first, Server({"/a": Script(body=b"a"), "/b": Script(then=Status(503))}) as second:
        entries = [
            node.entry(name, "", name.encode(), urls=[first.url(f"/{name}"), second.url(f"/{name}")])
            for name in ("a", "b")
        ]
        for entry in entries:
            del entry["url"]  # type: ignore[attr-defined]
        retry = {"base": "1ms", "max": "5ms", "attempts_without_progress": 2}
        defaults = {"mirror_order": "listed", "timeouts": {"read": "300ms"}, "retry": retry}
        assert node.run_config(*entries, defaults=defaults, parallel=1).code == 0
        assert [asked.path for asked in first.asked] == ["/a", "/b"]
        assert [asked.path for asked in second.asked][:2] == ["/a", "/b"]


@BOTH
@pytest.mark.parametrize("fault", [Hang(), stall(CHUNK // 2)], ids=["mute", "silent"])
def test_a_silent_mirror_is_left_long_before_the_timeout_if_its_tier_has_another(
    fault: Fault, chunk: int | None, tmp_path: Path
) -> None:
    with Server({"/m": Script(body=BODY, then=fault)}) as first, Server({"/m": Script(body=BODY)}) as second:
        one = Bench(body=BODY, folder=tmp_path, urls=[first.url("/m"), second.url("/m")], chunk=chunk)
        one.timeouts = Timeouts(read=60)
        with Stopwatch() as watch:
            result = one.download()
        assert watch.seconds < 9
        assert result.url == second.url("/m")
        assert result.bytes_received == len(BODY)


@pytest.mark.parametrize(
    ("way", "status"),
    [("artifacts", 503), ("chunks", 503), ("both", 503), ("artifacts", 403), ("chunks", 403), ("artifacts", 500)],
)
def test_a_server_that_limits_a_node_to_one_connection_gets_one_at_a_time(
    way: str, status: int, node: FakeNode, tmp_path: Path
) -> None:
    root = tmp_path / "served"
    root.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    body = BODY if way == "chunks" else BODY[: 20 * CHUNK]
    (root / "m").write_bytes(body)
    with nginx(tmp_path / "nginx", root=root) as server:
        chunks = {}
        if way != "artifacts":
            digests = Bench(body=body, folder=tmp_path, urls=[], chunk=CHUNK).transfer().chunk_map
            assert digests
            listed = [digests.expected(index).hex() for index in range(digests.number)]
            chunks = {"size": len(body), "chunks": {"size": CHUNK, "sha256": listed}}
        names = ["m"] if way == "chunks" else [f"m{number}" for number in range(6 if status == 503 else 3)]
        path = "/single/m" if status == 503 else f"/single-{status}/m"
        entries = [node.entry(name, server.url(path), body, **chunks) for name in names]
        ran = node.run_config(*entries, parallel=4, defaults={"retry": {"attempts_without_progress": 2}})
        assert ran.code == 0, ran.err
        host = server.url("/").rstrip("/")
        assert ran.err.count(f"{host} serves this node no more than 1 stream at once (") == 1, ran.err
        assert str(status) in {asked[-2] for asked in server.asked()}  # it did refuse some
        for name in names:
            told = ran.artifact(name)
            assert (told["attempts"], told["bytes_received"]) == (1, len(body))
        assert "trying again" not in ran.err
