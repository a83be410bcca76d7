"""Which mirror a node asks first: spread over a fleet, kept from run to run, or as listed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from itertools import permutations

import pytest

from fakes.faults import Status
from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.plan import spread

BODY = random.Random(31).randbytes(20_000)
MIRRORS = ["http://a/m", "https://b/m", "ftp://c/m"]
MACS = [f"52:54:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(3000)]


def test_each_order_is_as_frequent_as_any_other_over_a_fleet() -> None:
    orders = Counter(spread(MIRRORS, node=mac, artifact="model") for mac in MACS)
    assert set(orders) == set(permutations(MIRRORS))
    # 500 of each are expected, with a deviation of 20; it is the same at each run.
    assert all(400 < number < 600 for number in orders.values()), orders


def test_each_artifact_has_an_order_of_its_own() -> None:
    firsts = Counter(spread(MIRRORS, node=MACS[0], artifact=f"a{number}")[0] for number in range(3000))
    assert all(900 < number < 1100 for number in firsts.values()), firsts


def test_order_does_not_depend_on_the_list_and_survives_a_mirror_less() -> None:
    for mac in MACS[:50]:
        whole = spread(MIRRORS, node=mac, artifact="model")
        assert spread(MIRRORS[::-1], node=mac, artifact="model") == whole
        for gone in MIRRORS:
            rest = [url for url in MIRRORS if url != gone]
            assert spread(rest, node=mac, artifact="model") == tuple(url for url in whole if url != gone)


def test_files_of_the_node_come_first_and_tftp_comes_last_as_they_are_listed() -> None:
    given = ["tftp://b/m", "tftp://a/m", *MIRRORS, "FILE:///z", "file:///a"]
    for mac in MACS[:50]:
        order = spread(given, node=mac, artifact="model")
        assert order[:2] == ("FILE:///z", "file:///a")
        assert order[-2:] == ("tftp://b/m", "tftp://a/m")


def first_asked(node: FakeNode, number: int, server: Server, **others: object) -> str:
    """Which of two mirrors the node with the MAC address `number` asks first in a run."""
    node.write("sys/class/net/eth0/address", MACS[number])
    node.write("proc/net/route", "Iface\nx 0 0 0 0 0 0 0 0 0\neth0 00000000 0102000A 0003 0 0 100 00000000 0 0 0\n")
    (node.out / "m").unlink(missing_ok=True)
    before = len(server.asked)
    urls = [server.url("/one"), server.url("/two")]
    ran = node.run_config({**node.entry("m", "", BODY), "url": None, "urls": urls, **others})
    assert ran.code == 0, ran.err
    (asked,) = server.asked[before:]
    place = 1 + (asked.path == "/two")
    assert f"m: fetching from {server.url(asked.path)}, mirror {place if others else 1} of 2 (" in ran.err
    return asked.path


@pytest.fixture
def server() -> Server:
    return Server({"/one": Script(body=BODY), "/two": Script(body=BODY)})


def test_run_asks_the_mirrors_in_the_order_of_its_node_and_keeps_it(node: FakeNode, server: Server) -> None:
    with server:
        asked = [first_asked(node, number, server) for number in range(12)]
        assert set(asked) == {"/one", "/two"}
        assert [first_asked(node, number, server) for number in range(4)] == asked[:4]


def test_listed_order_is_that_of_the_list_on_every_node(node: FakeNode, server: Server) -> None:
    with server:
        asked = [first_asked(node, number, server, mirror_order="listed") for number in range(12)]
    assert set(asked) == {"/one"}


def test_second_mirror_is_named_when_the_first_fails(node: FakeNode) -> None:
    with Server({"/one": Script(then=Status(403)), "/two": Script(body=BODY)}) as server:
        urls = [server.url("/one"), server.url("/two")]
        ran = node.run_config({**node.entry("m", "", BODY), "url": None, "urls": urls, "mirror_order": "listed"})
    assert ran.code == 0
    assert f"m: fetching from {urls[1]}, mirror 2 of 2 (" in ran.err


def test_chunk_lists_are_spread_too_and_sums_files_name_the_url_listed_first(node: FakeNode) -> None:
    listed = hashlib.sha256(BODY).hexdigest().encode()
    lists = {f"/list{number}": Script(body=listed) for number in range(2)}
    sums = f"{hashlib.sha256(BODY).hexdigest()}  first.bin\n".encode()
    bodies = {"/first.bin": Script(body=BODY), "/second.bin": Script(body=BODY), "/sums": Script(body=sums)}
    with Server(lists | bodies) as server:
        chunks = {
            "size": 65536,
            "urls": [server.url(path) for path in lists],
            "sha256": hashlib.sha256(listed).hexdigest(),
        }
        urls = [server.url("/first.bin"), server.url("/second.bin")]
        for number in range(12):
            both = {**node.entry(f"b{number}", "", BODY, size=len(BODY)), "url": None, "urls": urls, "chunks": chunks}
            named = {**node.entry(f"s{number}", "", BODY), "url": None, "urls": urls, "sha256": None}
            ran = node.run_config(both, named | {"sha256_url": server.url("/sums")})
            assert ran.code == 0, ran.err
        for path in (*lists, "/first.bin", "/second.bin"):
            assert server.asked_for(path)
