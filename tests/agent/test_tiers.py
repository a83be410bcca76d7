"""Mirrors in tiers: a tier is spread over the fleet, and the next one is asked only while all before it fail."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.chunks import chunk_digests
from fakes.content import Content
from fakes.exchange import Exchange, Fault
from fakes.faults import Serve, Status, cut
from fakes.nginx import nginx
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server
from fakes.waiting import until

CHUNK = 64 * 1024
BODY = random.Random(160).randbytes(40 * CHUNK + 321)
DIGESTS = chunk_digests(BODY, size=CHUNK)
MANY = 40  # nodes, of which one has any given order of two mirrors with certainty
BOTH = pytest.mark.parametrize("is_chunked", [False, True], ids=["whole", "chunks"])


@dataclass(frozen=True, kw_only=True)
class Late(Serve):
    """Serves, but has to get the file itself first, which takes `seconds`."""

    seconds: float

    def answer(self, exchange: Exchange) -> None:
        exchange.wait(self.seconds)
        super().answer(exchange)


@dataclass(frozen=True, kw_only=True)
class Paced(Serve):
    """Serves a chunk every so many seconds."""

    every: float

    def _send(self, exchange: Exchange, content: Content, start: int, end: int) -> None:
        for at in range(start, end, CHUNK):
            exchange.wait(self.every)
            exchange.send_body(content.read(at, min(at + CHUNK, end)), at=at)


@dataclass
class Servers:
    """Two caches and the server behind them."""

    a: Server
    b: Server
    origin: Server

    @property
    def urls(self) -> list[object]:
        """In two tiers."""
        return [[self.a.url("/m"), self.b.url("/m")], self.origin.url("/m")]

    def fail(self, *servers: Server, then: Fault, faults: Sequence[Fault] = ()) -> None:
        for server in servers:
            server.scripts["/m"] = Script(body=BODY, then=then, faults=faults)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(*(stack.enter_context(Server({"/m": Script(body=BODY)})) for _ in range(3)))


def entry(node: FakeNode, urls: object, *, is_chunked: bool, name: str = "m") -> Entry:
    chunks = {"size": len(BODY), "chunks": {"size": CHUNK, "sha256": DIGESTS}} if is_chunked else {}
    return {**node.entry(name, "", BODY, **chunks), "url": None, "urls": urls}


def other_node(node: FakeNode, number: int) -> None:
    """Make `node` another one, on which nothing is in place."""
    node.write("etc/machine-id", f"{number:032x}\n")
    (node.out / "m").unlink(missing_ok=True)


@BOTH
def test_nodes_are_spread_over_the_first_tier_and_leave_the_next_alone(
    is_chunked: bool,  # noqa: FBT001
    node: FakeNode,
    servers: Servers,
) -> None:
    for number in range(MANY):
        other_node(node, number)
        ran = node.run_config(entry(node, servers.urls, is_chunked=is_chunked))
        assert ran.code == 0, ran.err
        assert "in tier 1 of 2 (" in ran.err
        if servers.a.asked and servers.b.asked:
            break
    assert servers.a.asked
    assert servers.b.asked
    assert not servers.origin.asked


@BOTH
def test_one_mirror_of_a_tier_that_works_keeps_the_next_tier_unasked(
    is_chunked: bool,  # noqa: FBT001
    node: FakeNode,
    servers: Servers,
) -> None:
    servers.fail(servers.a, then=Status(503))
    for number in range(MANY):
        other_node(node, number)
        assert node.run_config(entry(node, servers.urls, is_chunked=is_chunked), parallel=4).code == 0
        if servers.a.asked:
            break
    assert servers.a.asked
    assert not servers.origin.asked


@BOTH
@pytest.mark.parametrize("fault", [Status(503), Status(404), Status(403), cut(0)], ids=["503", "404", "403", "cut"])
def test_the_next_tier_serves_while_all_of_the_first_fail(
    fault: Fault,
    is_chunked: bool,  # noqa: FBT001
    node: FakeNode,
    servers: Servers,
) -> None:
    servers.fail(servers.a, servers.b, then=fault)
    ran = node.run_config(entry(node, servers.urls, is_chunked=is_chunked), parallel=4)
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    origin = servers.origin.url("/m")
    assert ran.artifact("m")["url"] == origin
    assert f"m: fetching from {origin}, mirror 3 of 3 in tier 2 of 2 (" in ran.err
    assert servers.a.asked
    assert servers.b.asked


@BOTH
def test_the_next_tier_has_its_turn_however_short_the_waits_are(
    is_chunked: bool,  # noqa: FBT001
    node: FakeNode,
    servers: Servers,
) -> None:
    """As with caches that take longer to answer 504 than they are left alone for."""
    servers.fail(servers.a, servers.b, then=Status(504))
    servers.fail(servers.origin, faults=[cut(0.4), Status(503)], then=Serve())
    retry = {"attempts_without_progress": 10, "base": "0s", "max": "0s"}
    ran = node.run_config(entry(node, servers.urls, is_chunked=is_chunked), parallel=1, defaults={"retry": retry})
    assert ran.code == 0, ran.err
    assert int(str(ran.artifact("m")["attempts"])) < 100


def test_a_third_tier_is_asked_when_two_fail(node: FakeNode, servers: Servers) -> None:
    servers.fail(servers.a, servers.b, then=Status(503))
    urls = [[servers.a.url("/m")], servers.b.url("/m"), [servers.origin.url("/m")]]
    ran = node.run_config(entry(node, urls, is_chunked=False), defaults={"retry": {"base": "60s"}})
    assert ran.code == 0, ran.err
    assert "attempt 1 at " + servers.a.url("/m") in ran.err
    assert "attempt 2 at " + servers.b.url("/m") in ran.err
    assert ran.artifact("m")["url"] == servers.origin.url("/m")


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_tier_that_is_back_takes_over_in_the_middle_of_a_file_with_chunks(
    parallel: int, node: FakeNode, servers: Servers
) -> None:
    servers.a.down()
    servers.b.down()
    servers.fail(servers.origin, then=Paced(every=0.05))
    halfway = threading.Thread(target=_up_when_asked, args=(servers, 3 * CHUNK), daemon=True)
    halfway.start()
    ran = node.run_config(
        entry(node, servers.urls, is_chunked=True),
        parallel=parallel,
        defaults={"retry": {"attempts_without_progress": 5, "base": "5ms", "max": "20ms"}},
    )
    halfway.join()
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert ran.artifact("m")["bytes_received"] == len(BODY)
    # At most the chunk that each of its streams was in was finished there.
    assert 3 * CHUNK <= servers.origin.sent("/m") < 30 * CHUNK
    assert servers.a.sent("/m") + servers.b.sent("/m") > 10 * CHUNK
    assert ran.artifact("m")["url"] in {servers.a.url("/m"), servers.b.url("/m")}


def _up_when_asked(servers: Servers, count: int) -> None:
    until(lambda: servers.origin.sent("/m") >= count)
    servers.a.up()
    servers.b.up()


def test_a_cache_that_is_killed_in_the_middle_is_replaced_by_its_neighbour(node: FakeNode, servers: Servers) -> None:
    servers.fail(servers.a, servers.b, then=Paced(every=0.02))
    killer = threading.Thread(target=_down_when_asked, args=(servers.a,), daemon=True)
    killer.start()
    ran = node.run_config(entry(node, servers.urls, is_chunked=True), parallel=4)
    killer.join()
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert servers.b.asked
    assert not servers.origin.asked


def _down_when_asked(server: Server) -> None:
    until(lambda: server.sent("/m") > CHUNK)
    server.down()


def test_a_lying_cache_is_blamed_and_its_neighbour_mends_what_it_sent(node: FakeNode, servers: Servers) -> None:
    servers.fail(servers.a, then=Serve(body=BODY[::-1]))
    servers.fail(servers.b, then=Paced(every=0.01))
    ran = node.run_config(entry(node, servers.urls, is_chunked=True), parallel=2)
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert f"m: {servers.a.url('/m')} sent wrong bytes" in ran.err
    assert not servers.origin.asked


@BOTH
def test_a_tier_that_lies_is_blamed_and_the_next_one_serves(
    is_chunked: bool,  # noqa: FBT001
    node: FakeNode,
    servers: Servers,
) -> None:
    servers.fail(servers.a, servers.b, then=Serve(body=BODY[::-1]))
    ran = node.run_config(entry(node, servers.urls, is_chunked=is_chunked), parallel=2)
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert servers.a.asked
    assert servers.b.asked
    for liar in (servers.a, servers.b):
        assert [line for line in ran.err.splitlines() if f"{liar.url('/m')} " in line and "wrong" in line]
    assert ran.artifact("m")["url"] == servers.origin.url("/m")


def test_only_the_chunk_that_a_tier_has_wrong_comes_from_the_next(node: FakeNode, servers: Servers) -> None:
    wrong = 20 * CHUNK + 5
    damaged = BODY[:wrong] + bytes([BODY[wrong] ^ 1]) + BODY[wrong + 1 :]
    servers.fail(servers.a, servers.b, then=Serve(body=damaged))
    ran = node.run_config(entry(node, servers.urls, is_chunked=True), parallel=1)
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert servers.origin.sent("/m") == CHUNK
    assert "is no longer used" not in ran.err


def test_a_cache_that_first_gets_the_file_itself_is_given_all_of_the_read_timeout(
    node: FakeNode, servers: Servers
) -> None:
    servers.fail(servers.a, then=Late(seconds=5.5))
    urls = [servers.a.url("/m"), [servers.origin.url("/m")]]
    ran = node.run_config(entry(node, urls, is_chunked=False))
    assert (ran.code, ran.artifact("m")["attempts"]) == (0, 1), ran.err
    assert not servers.origin.asked


def test_streams_wait_for_a_cache_that_serves_one_at_a_time(node: FakeNode, servers: Servers, tmp_path: Path) -> None:
    root = tmp_path / "served"
    root.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    (root / "m").write_bytes(BODY)
    with nginx(tmp_path / "nginx", root=root) as cache:
        urls = [[cache.url("/single/m")], servers.origin.url("/m")]
        names = [f"m{number}" for number in range(2)]
        ran = node.run_config(*(entry(node, urls, is_chunked=True, name=name) for name in names), parallel=4)
        assert ran.code == 0, ran.err
        assert "503" in {asked[-2] for asked in cache.asked()}  # it did refuse some
    assert not servers.origin.asked


def test_a_file_without_chunks_goes_on_in_the_next_tier_where_a_cache_broke_off(
    node: FakeNode, servers: Servers
) -> None:
    servers.fail(servers.a, servers.b, faults=[cut(0.25)], then=Status(503))
    ran = node.run_config(entry(node, servers.urls, is_chunked=False))
    assert (ran.code, ran.artifact("m")["bytes_received"]) == (0, len(BODY)), ran.err
    assert servers.origin.sent("/m") < len(BODY)


def test_listed_order_holds_within_a_tier_too(node: FakeNode, servers: Servers) -> None:
    for number in range(6):
        other_node(node, number)
        listed = {**entry(node, servers.urls, is_chunked=False), "mirror_order": "listed"}
        assert node.run_config(listed).code == 0
    assert len(servers.a.asked) == 6
    assert not servers.b.asked


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        ([["http://a/m"], []], "artifacts[0].urls[1] is a tier without a mirror [tier-empty]"),
        ([["http://a/m", "http://a/m"]], "artifacts[0].urls[0][1] is given before [mirror-twice]"),
        ([["http://a/m"], "http://a/m"], "artifacts[0].urls[1] is given before [mirror-twice]"),
        ([["http://a/m", ["http://b/m"]]], "artifacts[0].urls[0][1] must be text [wrong-type]"),
        ([["http://a/m", "http://b/ m"]], "artifacts[0].urls[0][1] is not a URL [url-invalid]"),
        ([["http://a/m"], {"b": 1}], "artifacts[0].urls[1] must be text [wrong-type]"),
    ],
)
def test_what_is_wrong_with_tiers_is_told_with_its_place(urls: object, told: str, node: FakeNode) -> None:
    (node.folder / "fetch.yaml").write_text(node.config(entry(node, urls, is_chunked=False)))
    ran = node.run("check", str(node.folder / "fetch.yaml"))
    assert ran.code == 65
    message, _, reference = told.rpartition(" ")
    assert f"error{reference}: {message}" in ran.err


def test_check_counts_the_mirrors_of_all_tiers(node: FakeNode, servers: Servers) -> None:
    (node.folder / "fetch.yaml").write_text(node.config(entry(node, servers.urls, is_chunked=False)))
    assert f"  m: {servers.a.url('/m')} and 2 mirrors -> " in node.run("check", str(node.folder / "fetch.yaml")).out


def test_a_cache_without_ranges_serves_before_a_server_that_has_them(node: FakeNode, servers: Servers) -> None:
    servers.fail(servers.a, then=Serve(ranges=False))
    ran = node.run_config(entry(node, [[servers.a.url("/m")], servers.origin.url("/m")], is_chunked=True), parallel=4)
    assert ran.code == 0, ran.err
    assert not servers.origin.asked


def test_a_slow_cache_is_left_for_the_next_tier_and_asked_again_ever_later(node: FakeNode, servers: Servers) -> None:
    slow = replace(cut(0), drip=0.02)
    servers.fail(servers.a, servers.b, then=slow)
    timeouts = {"min_rate": "16KiB", "min_rate_window": "200ms"}
    retry = {"base": "1s", "max": "60s"}
    ran = node.run_config(
        entry(node, servers.urls, is_chunked=True), parallel=1, defaults={"timeouts": timeouts, "retry": retry}
    )
    assert ran.code == 0, ran.err
    assert len(servers.a.asked) + len(servers.b.asked) <= 4


def test_a_host_that_is_too_slow_is_remembered_for_the_other_artifacts(node: FakeNode, servers: Servers) -> None:
    servers.fail(servers.a, then=replace(cut(0), drip=0.02))
    timeouts = {"min_rate": "16KiB", "min_rate_window": "200ms", "read": "2s"}
    urls = [servers.a.url("/m"), servers.b.url("/m")]
    entries = [entry(node, urls, is_chunked=False, name=f"m{number}") for number in range(5)]
    ran = node.run_config(*entries, parallel=1, defaults={"timeouts": timeouts, "mirror_order": "listed"})
    assert ran.code == 0, ran.err
    assert (len(servers.a.asked), len(servers.b.asked)) == (1, 5)


def test_a_first_use_of_each_tier_is_logged_and_later_ones_only_for_debugging(node: FakeNode, servers: Servers) -> None:
    servers.fail(servers.a, servers.b, then=cut(CHUNK))
    file = node.folder / "fetch.yaml"
    retry = {"base": "1ms", "max": "1ms"}
    found = entry(node, servers.urls, is_chunked=True)
    file.write_text(node.config(found, parallel=1, defaults={"retry": retry}))
    ran = node.run("run", "--config", str(file))
    assert ran.code == 0, ran.err
    assert ran.err.count("fetching from") == 2
    (node.out / "m").unlink()
    assert node.run("run", "--config", str(file), "--debug").err.count("fetching from") > 2


@pytest.mark.parametrize("cache", [404, 503])
def test_a_refusal_of_the_last_tier_is_the_cause_where_the_caches_just_lack_the_file(
    cache: int, node: FakeNode, servers: Servers
) -> None:
    servers.fail(servers.a, servers.b, then=Status(cache))
    servers.fail(servers.origin, then=Status(403))
    ran = node.run_config(entry(node, servers.urls, is_chunked=False))
    assert (ran.code, ran.state["cause"]) == ((77, "refused") if cache == 404 else (69, "network"))
