"""Answers that will be over soon: a web page in place of a file (a login, an error), and a refusal for a moment."""

from __future__ import annotations

import hashlib
import random

import pytest

from fakes.chunks import chunk_digests
from fakes.faults import Raw, Serve, Status, cut, redirect
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server

CHUNK = 64 * 1024
BODY = random.Random(23).randbytes(4 * CHUNK + 1)
HALF = len(BODY) // 2
LOGIN = b"<!DOCTYPE html><title>Log in</title>" + b" " * 5000
SUMS = f"{hashlib.sha256(BODY).hexdigest()}  m\n".encode()
RETRY = {"retry": {"attempts_without_progress": 8, "base": "1ms", "max": "5ms"}}


def page(*, kind: str = "text/html; charset=utf-8", framing: str = "length", body: bytes = LOGIN) -> Serve:
    """A login in answer to whatever is asked for."""
    return Serve(body=body, fields={"Content-Type": kind}, framing=framing, ranges=False, etag=None)


def entry(node: FakeNode, server: Server, *, pins: str) -> Entry:
    """The artifact m, pinned by the digest of the whole, that and its size, or those of its chunks."""
    found = dict(node.entry("m", server.url("/m"), BODY))
    if pins != "digest":
        found["size"] = len(BODY)
    if pins == "chunks":
        found["chunks"] = {"size": CHUNK, "sha256": chunk_digests(BODY, size=CHUNK)}
        del found["sha256"]
    return found


@pytest.mark.parametrize("pins", ["digest", "size", "chunks"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_login_page_for_some_attempts_does_not_end_the_artifact(node: FakeNode, pins: str, framing: str) -> None:
    with Server({"/m": Script(body=BODY, faults=[page(framing=framing)] * 4)}) as server:
        ran = node.run_config(entry(node, server, pins=pins), defaults=RETRY)
    assert ran.code == 0, ran.err
    assert (node.out / "m").read_bytes() == BODY
    assert "a web page, perhaps a login or an error" in ran.err


@pytest.mark.parametrize("pins", ["digest", "size", "chunks"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_login_page_that_stays_is_an_integrity_error_after_all_attempts(
    node: FakeNode, pins: str, framing: str
) -> None:
    with Server({"/m": Script(then=page(kind="application/xhtml+xml", framing=framing))}) as server:
        ran = node.run_config(entry(node, server, pins=pins), defaults=RETRY)
        assert len(server.asked_for("/m")) == 8
    assert (ran.code, ran.artifact("m")["cause"]) == (76, "integrity")
    assert "application/xhtml+xml: a web page" in str(ran.artifact("m")["error"])
    assert not (node.out / "m").exists()


def test_a_file_that_is_merely_called_a_web_page_is_not_fetched_again_and_again(node: FakeNode) -> None:
    other = random.Random(24).randbytes(2 << 20)
    with Server({"/m": Script(then=page(body=other))}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
        assert len(server.asked_for("/m")) == 2
    assert ran.code == 76


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_is_here_stays_when_a_login_page_answers_in_the_middle(node: FakeNode, framing: str) -> None:
    with Server({"/m": Script(body=BODY, faults=[cut(0.5), *[page(framing=framing)] * 3])}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
        asked = server.asked_for("/m")
    assert ran.code == 0, ran.err
    assert [one.range for one in asked] == [None, *[f"bytes={HALF}-"] * 4]
    assert asked[-1].sent == len(BODY) - HALF


def test_another_mirror_goes_on_after_a_mirror_that_has_turned_to_login_pages(node: FakeNode) -> None:
    with (
        Server({"/m": Script(faults=[cut(0.5)], body=BODY, then=page())}) as first,
        Server({"/m": Script(body=BODY)}) as second,
    ):
        urls = [first.url("/m"), second.url("/m")]
        found = {**entry(node, first, pins="digest"), "urls": urls, "mirror_order": "listed"}
        del found["url"]
        ran = node.run_config(found, defaults=RETRY)
        assert second.sent("/m") == len(BODY) - HALF
    assert ran.code == 0, ran.err


def test_the_journal_says_where_a_redirect_led_to(node: FakeNode) -> None:
    with Server({"/login": Script(then=page())}) as portal, Server() as server:
        there = portal.url("/login?session=secret")
        server.scripts = {"/m": Script(body=BODY, faults=[redirect(there), redirect(portal.url("/none"))])}
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
    assert ran.code == 0, ran.err
    assert f"sent as text/html by {portal.url('/login')}: a web page" in ran.err
    assert f"the server answered 404 (after a redirect to {portal.url('/none')})" in ran.err
    assert "secret" not in ran.err


def test_a_configuration_by_url_is_asked_for_again_after_a_login_page(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY)}) as server:
        text = node.config(entry(node, server, pins="digest")).encode()
        server.scripts["/c"] = Script(body=text, faults=[page()] * 2)
        digest = hashlib.sha256(text).hexdigest()
        node.boot_with(f"pxe-fetch.config={server.url('/c')} pxe-fetch.config.sha256={digest}")
        ran = node.run("run")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("odd", [page(), page(kind="text/plain"), Serve(body=b"", etag=None)])
def test_a_list_of_digests_without_the_file_is_the_mirrors_failure_and_not_the_artifacts(
    node: FakeNode, odd: Serve
) -> None:
    with Server({"/S": Script(body=SUMS, faults=[odd]), "/m": Script(body=BODY)}) as server:
        found = {**entry(node, server, pins="digest"), "sha256_url": server.url("/S")}
        del found["sha256"]
        ran = node.run_config(found, defaults=RETRY)
    assert ran.code == 0, ran.err
    assert f"attempt 1 at {server.url('/S')} failed: the list of digests has no line for m" in ran.err


def test_the_server_behind_a_cache_is_asked_if_the_cache_has_another_list_of_digests(node: FakeNode) -> None:
    with (
        Server({"/S": Script(then=page()), "/m": Script(body=BODY)}) as cache,
        Server({"/S": Script(body=SUMS), "/m": Script(body=BODY)}) as server,
    ):
        found = {**entry(node, server, pins="digest"), "sha256_url": server.url("/S")}
        del found["sha256"]
        ran = node.run_config(found, defaults={**RETRY, "tiers": {server.url("/"): [cache.url("/")]}})
        assert (len(cache.asked_for("/S")), len(server.asked_for("/S"))) == (1, 1)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("code", [403, 413])
def test_a_refusal_that_says_when_to_come_again_is_asked_again(node: FakeNode, code: int) -> None:
    with Server({"/m": Script(body=BODY, faults=[Status(code, {"Retry-After": "0"})] * 2)}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("code", [401, 403, 410, 413])
@pytest.mark.parametrize("field", [{}, {"Retry-After": "soon"}])
def test_a_refusal_that_does_not_say_so_is_final(node: FakeNode, code: int, field: dict[str, str]) -> None:
    with Server({"/m": Script(then=Status(code, field))}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
        assert len(server.asked_for("/m")) == 1
    assert ran.code == 77


def test_a_network_that_wants_a_login_is_told_as_such(node: FakeNode) -> None:
    with Server({"/m": Script(body=BODY, faults=[Status(511)])}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
    assert ran.code == 0, ran.err
    assert "511: this network wants a login" in ran.err


def test_a_redirect_whose_signature_has_expired_is_followed_again(node: FakeNode) -> None:
    with Server({"/b": Script(body=BODY, faults=[Status(403)] * 2)}) as storage, Server() as server:
        signed = [redirect(storage.url(f"/b?signature={number}")) for number in range(3)]
        server.scripts = {"/m": Script(faults=signed, then=Status(500))}
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
    assert ran.code == 0, ran.err


def test_a_refusal_behind_each_redirect_is_final_soon(node: FakeNode) -> None:
    with Server({"/b": Script(then=Status(403))}) as storage, Server() as server:
        server.scripts = {"/m": Script(then=redirect(storage.url("/b?signature=old")))}
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
        assert len(server.asked) == 3
    assert (ran.code, ran.artifact("m")["cause"]) == (77, "refused")


def test_a_wait_beyond_the_deadline_is_told_as_such(node: FakeNode) -> None:
    retry = {"deadline": "5s", "retry_after_max": "2h", "base": "1ms"}
    with Server({"/m": Script(then=Status(503, {"Retry-After": "3600"}))}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults={"retry": retry})
    assert (ran.code, ran.artifact("m")["cause"]) == (75, "deadline")
    assert "the next attempt is due in 1 h 0 min, after the deadline" in ran.err


def test_an_empty_artifact_is_not_said_to_be_left_by_an_earlier_run(node: FakeNode) -> None:
    with Server({"/m": Script(body=b"")}) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), b""))
    assert ran.code == 0
    assert f"placed at {node.out / 'm'}: 0 bytes, " in ran.err


def test_a_range_of_a_file_of_another_size_is_not_taken_and_costs_no_byte(node: FakeNode) -> None:
    size = len(BODY) + 1
    fields = f"Content-Range: bytes {HALF}-{size - 1}/{size}\r\nContent-Length: {size - HALF}"
    other = Raw(f"HTTP/1.1 206 Partial\r\n{fields}\r\n\r\n".encode() + BODY[HALF:] + b"x")
    with Server({"/m": Script(body=BODY, faults=[cut(0.5), other])}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
        assert server.sent("/m") == len(BODY)
    assert ran.code == 0, ran.err
    assert f"the rest of a file of {size} bytes, when {len(BODY)} were declared before" in ran.err


@pytest.mark.parametrize("fields", [{"Content-Encoding": "gzip"}, {"Content-Type": "text/html"}])
def test_a_large_file_with_a_wrong_label_is_resumed_by_its_own_mirror(node: FakeNode, fields: dict[str, str]) -> None:
    large = random.Random(25).randbytes(3 << 20)
    with Server(
        {"/m": Script(body=large, faults=[Serve(fields=fields, until=0.5)], then=Serve(fields=fields))}
    ) as server:
        ran = node.run_config(node.entry("m", server.url("/m"), large), defaults=RETRY)
        assert server.sent("/m") == len(large)
    assert ran.code == 0, ran.err


def test_the_beginning_of_a_login_page_is_not_continued_by_its_own_mirror(node: FakeNode) -> None:
    page_cut = Serve(body=LOGIN, fields={"Content-Type": "text/html"}, until=0.5)
    with Server({"/m": Script(body=BODY, faults=[page_cut])}) as server:
        ran = node.run_config(entry(node, server, pins="digest"), defaults=RETRY)
        assert [one.range for one in server.asked_for("/m")] == [None, None]
    assert ran.code == 0, ran.err
