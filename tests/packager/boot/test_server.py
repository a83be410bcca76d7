"""The server that stands in for the production host, over connections passed to it as slirp passes them."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from pxe_pack.boot.events import Event, Events, Report, Requested, Sent
from pxe_pack.boot.network import GUESTFWD, Network, plan_network
from pxe_pack.boot.server import serving

ISO = "http://10.0.0.1/liveos.iso"
NAMED = "http://10.0.0.1:8080/other-user-artifacts/a%20b%20%C3%BC.txt"
BODY = bytes(range(256)) * 12_000  # more than one block


class Peer:
    """The node's side of the connections."""

    def __init__(self, path: Path, network: Network, events: Events) -> None:
        self.path = path
        self.network = network
        self.events = events

    def connect(self, endpoint: str) -> HTTPConnection:
        """A connection to `endpoint` as the node sees it."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-S", str(GUESTFWD), str(self.path), endpoint]
        with theirs:
            subprocess.run(command, stdin=theirs.fileno(), check=True, timeout=30)
        connection = HTTPConnection("10.0.0.1", timeout=30)
        connection.sock = ours
        return connection

    def seen(self) -> list[Event]:
        """The events so far."""
        found = []
        while True:
            try:
                found.append(self.events.get_nowait())
            except queue.Empty:
                return found


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    (tmp_path / "liveos.iso").write_bytes(BODY)
    (tmp_path / "named").write_bytes(b"0123456789")
    files = {ISO: tmp_path / "liveos.iso", NAMED: tmp_path / "named", "http://10.0.0.1/gone": tmp_path / "gone"}
    network, events = plan_network(files), Events()
    with serving(tmp_path / "http", files=files, network=network, events=events):
        yield Peer(tmp_path / "http", network, events)


def ask(connection: HTTPConnection, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response, response.read()


def post(connection: HTTPConnection, body: str) -> int:
    connection.request("POST", "/report", body)
    with connection.getresponse() as response:
        response.read()
        return response.status


def test_serves_whole_files_one_after_the_other_on_one_connection(peer: Peer) -> None:
    connection = peer.connect("10.0.0.1:80")
    for _ in range(2):
        response, body = ask(connection, "/liveos.iso")
        assert (response.status, body) == (200, BODY)
    connection.close()
    events: list[Event] = []
    while sum(event.amount for event in events if isinstance(event, Sent)) < 2 * len(BODY):
        events.append(peer.events.get(timeout=30))
    assert events.count(Requested(method="GET", url=ISO, status=200)) == 2


def test_answers_for_each_port_with_that_ports_files(peer: Peer) -> None:
    right, wrong = peer.connect("10.0.0.1:8080"), peer.connect("10.0.0.1:80")
    path = "/other-user-artifacts/a%20b%20%C3%BC.txt"
    assert ask(right, path)[1] == b"0123456789"
    assert ask(wrong, path)[0].status == 404
    right.close()
    wrong.close()


@pytest.mark.parametrize(
    ("wanted", "status", "answer", "body"),
    [
        ("bytes=3-5", 206, "bytes 3-5/10", b"345"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=7-99", 206, "bytes 7-9/10", b"789"),
        ("bytes=-4", 206, "bytes 6-9/10", b"6789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=5-3", 200, None, b"0123456789"),
        ("bytes=0-1,4-5", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
    ],
)
def test_gives_the_range_asked_for(peer: Peer, wanted: str, status: int, answer: str | None, body: bytes) -> None:
    connection = peer.connect("10.0.0.1:8080")
    response, got = ask(connection, "/other-user-artifacts/a%20b%20%C3%BC.txt", Range=wanted)
    assert (response.status, response.getheader("Content-Range"), got) == (status, answer, body)
    connection.close()


def test_a_range_of_another_version_is_answered_with_the_whole(peer: Peer) -> None:
    connection = peer.connect("10.0.0.1:80")
    tag = ask(connection, "/liveos.iso", "HEAD")[0].getheader("ETag") or ""
    assert ask(connection, "/liveos.iso", Range="bytes=0-9", If_Range=tag)[1] == BODY[:10]
    assert ask(connection, "/liveos.iso", Range="bytes=0-9", If_Range='"another"')[1] == BODY
    connection.close()


def test_head_describes_and_sends_nothing(peer: Peer) -> None:
    connection = peer.connect("10.0.0.1:80")
    response, body = ask(connection, "/liveos.iso", "HEAD")
    assert (response.status, response.getheader("Content-Length"), body) == (200, str(len(BODY)), b"")
    assert response.getheader("Accept-Ranges") == "bytes"
    connection.close()


def test_says_what_was_asked_for_in_vain(peer: Peer) -> None:
    connection = peer.connect("10.0.0.1:80")
    assert ask(connection, "/models/m.bin")[0].status == 404
    assert ask(connection, "/gone")[0].status == 404
    assert ask(connection, "/../../etc/passwd")[0].status == 404
    connection.close()
    urls = [event.url for event in peer.seen() if isinstance(event, Requested) and event.status == 404]
    assert urls == ["http://10.0.0.1/models/m.bin", "http://10.0.0.1/gone", "http://10.0.0.1/../../etc/passwd"]


def test_takes_the_report_where_it_is_to_be_sent_and_nowhere_else(peer: Peer) -> None:
    document = {"phase": "done", "exit_code": 0}
    stranger, connection = peer.connect("10.0.0.1:80"), peer.connect(str(peer.network.report))
    assert post(stranger, json.dumps(document)) == 404
    assert post(connection, "[1, 2") == 400
    assert post(connection, json.dumps(document)) == 204
    stranger.close()
    connection.close()
    assert [event for event in peer.seen() if isinstance(event, Report)] == [Report(document=document)]


def test_goes_on_when_a_connection_breaks(peer: Peer) -> None:
    broken = peer.connect("10.0.0.1:80")
    broken.request("GET", "/liveos.iso")
    broken.close()
    connection = peer.connect("10.0.0.1:80")
    assert ask(connection, "/liveos.iso")[1] == BODY
    connection.close()
