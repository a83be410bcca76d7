"""`tiers`: caches in front of all urls below a base, written once for a whole configuration."""

from __future__ import annotations

import hashlib
import json
import random
import ssl
from collections.abc import Iterator

import pytest

from fakes.certs import Authority
from fakes.chunks import chunk_listing
from fakes.faults import Status
from fakes.node import Entry, FakeNode
from fakes.server import Script, Server

CHUNK = 64 * 1024
BODY = random.Random(161).randbytes(5 * CHUNK)
DIGEST = hashlib.sha256(BODY).hexdigest()
LIST = chunk_listing(BODY, size=CHUNK)
FILES = {"/site/m.bin": BODY, "/site/m.chunks": LIST, "/site/SHA256SUMS": f"{DIGEST}  m.bin\n".encode()}
SCRIPTS = {path: Script(body=body) for path, body in FILES.items()}


@pytest.fixture
def cache() -> Iterator[Server]:
    with Server(SCRIPTS) as server:
        yield server


@pytest.fixture
def origin() -> Iterator[Server]:
    with Server(SCRIPTS) as server:
        yield server


def entries(node: FakeNode, base: str) -> list[Entry]:
    """A file with a digest of its own, one with a list of chunks, one with a SHA256SUMS file; all below `base`."""
    chunks = {"size": CHUNK, "url": f"{base}m.chunks", "sha256": hashlib.sha256(LIST).hexdigest()}
    return [
        node.entry("plain", f"{base}m.bin", BODY),
        {**node.entry("chunked", f"{base}m.bin", BODY), "sha256": None, "size": len(BODY), "chunks": chunks},
        {**node.entry("summed", f"{base}m.bin", BODY), "sha256": None, "sha256_url": f"{base}SHA256SUMS"},
    ]


def test_one_line_puts_a_cache_before_all_that_is_below_a_base(node: FakeNode, cache: Server, origin: Server) -> None:
    tiers = {origin.url("/site"): [cache.url("/site/")]}
    ran = node.run_config(*entries(node, origin.url("/site/")), defaults={"tiers": tiers})
    assert ran.code == 0, ran.err
    assert not origin.asked
    assert {asked.path for asked in cache.asked} == set(FILES)
    assert {ran.artifact(name)["url"] for name in ("plain", "chunked", "summed")} == {cache.url("/site/m.bin")}


@pytest.mark.parametrize("code", [404, 502])
def test_what_the_cache_does_not_have_comes_from_the_server_behind_it(
    code: int, node: FakeNode, cache: Server, origin: Server
) -> None:
    cache.scripts = dict.fromkeys(FILES, Script(then=Status(code)))
    tiers = {origin.url("/site/"): [cache.url("/site/")]}
    ran = node.run_config(*entries(node, origin.url("/site/")), defaults={"tiers": tiers})
    assert ran.code == 0, ran.err
    assert {asked.path for asked in origin.asked} == set(FILES)


def test_relative_urls_have_the_caches_of_their_base_and_the_kernels_base_has_none(
    node: FakeNode, cache: Server, origin: Server
) -> None:
    defaults = {"base_url": origin.url("/site/"), "tiers": {origin.url("/"): [cache.url("/")]}}
    assert node.run_config(*entries(node, ""), defaults=defaults).code == 0
    assert not origin.asked
    with Server(SCRIPTS) as other:
        (node.out / "plain").unlink()
        node.boot_with(f"pxe-fetch.base_url={other.url('/site/')}")
        asked = len(cache.asked)
        assert node.run_config(node.entry("plain", "m.bin", BODY), defaults=defaults).code == 0
        assert other.asked
        assert len(cache.asked) == asked


def test_tiers_of_caches_are_named_by_facts_and_end_with_the_server(
    node: FakeNode, cache: Server, origin: Server
) -> None:
    with Server(SCRIPTS) as zone:
        node.boot_with(f"rack={cache.port}")
        tiers = {origin.url("/"): [["http://127.0.0.1:${cmdline.rack}/"], zone.url("/")]}
        for gone, asked in ((None, cache), (cache, zone), (zone, origin)):
            if gone:
                gone.down()
                (node.out / "m").unlink()
            ran = node.run_config(node.entry("m", origin.url("/site/m.bin"), BODY), defaults={"tiers": tiers})
            assert ran.code == 0, ran.err
            assert ran.artifact("m")["url"] == asked.url("/site/m.bin")


def test_the_longest_base_counts_and_an_empty_list_has_no_cache(node: FakeNode, cache: Server, origin: Server) -> None:
    defaults = {"tiers": {origin.url("/"): [cache.url("/")], origin.url("/site/"): []}}
    assert node.run_config(node.entry("m", origin.url("/site/m.bin"), BODY), defaults=defaults).code == 0
    assert not cache.asked
    own = node.entry("own", origin.url("/site/m.bin"), BODY, tiers={origin.url("/site/"): [cache.url("/site/")]})
    assert node.run_config(own, defaults=defaults).code == 0
    assert len(cache.asked) == 1


def test_a_mirror_without_a_cache_is_asked_together_with_the_caches_of_the_others(
    node: FakeNode, cache: Server, origin: Server
) -> None:
    with Server(SCRIPTS) as other:
        entry = {
            **node.entry("m", "", BODY),
            "url": None,
            "urls": [origin.url("/site/m.bin"), other.url("/site/m.bin")],
        }
        for number in range(40):  # an order of two mirrors is that of one of them with certainty
            node.write("etc/machine-id", f"{number:032x}\n")
            (node.out / "m").unlink(missing_ok=True)
            assert node.run_config(entry, defaults={"tiers": {origin.url("/"): [cache.url("/")]}}).code == 0
            if other.asked and cache.asked:
                break
        assert other.asked
        assert cache.asked
    assert not origin.asked


@pytest.mark.parametrize("is_relative", [False, True], ids=["absolute", "relative"])
def test_a_digest_by_https_is_asked_of_no_cache_by_http(
    is_relative: bool,  # noqa: FBT001
    node: FakeNode,
    cache: Server,
    authority: Authority,
    localhost: ssl.SSLContext,
) -> None:
    with Server(SCRIPTS, tls=localhost) as origin:
        defaults = {"tiers": {origin.url("/"): [cache.url("/")]}, "base_url": origin.url("/site/")}
        tls = {"ca_file": str(authority.certificate)}
        base = "" if is_relative else origin.url("/site/")
        ran = node.run_config(entries(node, base)[2], defaults=defaults, tls=tls)
        assert ran.code == 0, ran.err
        assert [asked.path for asked in origin.asked] == ["/site/SHA256SUMS"]
        assert [asked.path for asked in cache.asked] == ["/site/m.bin"]


@pytest.mark.parametrize("is_allowed", [False, True], ids=["refused", "allowed"])
def test_a_cache_by_http_gets_a_credential_only_if_that_is_allowed(
    is_allowed: bool,  # noqa: FBT001
    node: FakeNode,
    cache: Server,
) -> None:
    node.credential("pxe-fetch.token", "Authorization: Bearer abc\n")
    secret = {"header_credential": "pxe-fetch.token", "insecure": is_allowed}
    defaults = {"tiers": {"https://origin.example/": [cache.url("/")]}}
    ran = node.run_config(node.entry("m", "https://origin.example/site/m.bin", BODY, **secret), defaults=defaults)
    if is_allowed:
        assert [asked.fields["authorization"] for asked in cache.asked] == ["Bearer abc"]
    else:
        assert (ran.code, ran.state["cause"]) == (65, "credential-unencrypted")
        assert not cache.asked


@pytest.mark.parametrize(
    ("tiers", "told"),
    [
        ({"origin": ["http://c/"]}, "error[url-invalid]: defaults.tiers: `origin` must be absolute"),
        ({"http://o/": "http://c/"}, "error[wrong-type]: defaults.tiers.http://o/ must be a list"),
        ({"http://o/": ["http://c/", "x/"]}, "error[url-invalid]: defaults.tiers.http://o/[1] must be absolute"),
        (
            {"http://o/": [["http://c/"], []]},
            "error[tier-empty]: defaults.tiers.http://o/[1] is a tier without a mirror",
        ),
        (["http://c/"], "error[wrong-type]: defaults.tiers must be a mapping"),
    ],
)
def test_what_is_wrong_with_a_base_is_told_with_its_place(tiers: object, told: str, node: FakeNode) -> None:
    text = node.config(node.entry("m", "http://o/m", BODY), defaults={"tiers": tiers})
    (node.folder / "fetch.yaml").write_text(text)
    ran = node.run("check", str(node.folder / "fetch.yaml"))
    assert ran.code == 65
    assert told in ran.err


def test_check_prints_the_caches_with_the_mirrors(node: FakeNode) -> None:
    tiers = {"http://o/": [["http://a/", "http://b/"], "http://z/"]}
    text = node.config(node.entry("m", "x/m.bin", b""), defaults={"tiers": tiers, "base_url": "http://o/"})
    file = node.folder / "fetch.yaml"
    file.write_text(text)
    assert "  m: x/m.bin and 3 mirrors -> " in node.run("check", str(file)).out
    (listed,) = json.loads(node.run("check", "--json", str(file)).out)["artifacts"]
    assert listed["urls"] == ["http://a/x/m.bin", "http://b/x/m.bin", "http://z/x/m.bin", "x/m.bin"]


def test_relocated_files_have_the_caches_of_where_they_are_now(node: FakeNode, cache: Server, origin: Server) -> None:
    with Server(SCRIPTS) as new:
        entry = node.entry("m", origin.url("/site/m.bin"), BODY)
        node.boot_with(f"pxe-fetch.artifact_url={new.url('/site/')}")
        tiers = {origin.url("/"): [cache.url("/")]}
        ran = node.run_config(entry, defaults={"tiers": tiers}, artifact_url=origin.url("/site/"))
        assert ran.code == 0, ran.err
        assert new.asked
        assert not cache.asked
        assert not origin.asked


@pytest.mark.parametrize(
    ("base", "url", "asked"),
    [
        ("https://Models.LAN/", "https://models.lan/A/m.bin", "https://c/A/m.bin"),
        ("https://models.lan/A", "https://MODELS.lan:443/A/m.bin?B=C", "https://c/m.bin?B=C"),
        ("http://o:80/", "HTTP://o/m.bin", "https://c/m.bin"),
        ("http://${cmdline.Site}.lan/", "http://${cmdline.Site}.lan/m.bin", "https://c/m.bin"),
        ("http://o:8080/", "http://o/m.bin", None),
        ("http://o/A/", "http://o/a/m.bin", None),
        ("file:///srv/", "file:///srv/m.bin", "https://c/m.bin"),
    ],
)
def test_a_base_is_compared_as_a_server_and_a_path(base: str, url: str, asked: str | None, node: FakeNode) -> None:
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(node.entry("m", url, b""), defaults={"tiers": {base: ["https://c/"]}}))
    (listed,) = json.loads(node.run("check", "--json", str(file)).out)["artifacts"]
    assert listed["urls"] == [*filter(None, (asked,)), url]


def test_docker_io_is_a_base_as_it_is_a_registry(node: FakeNode) -> None:
    file, reference = node.folder / "fetch.yaml", f"docker.io/library/x@sha256:{DIGEST}"
    entry = {"name": "m", "oci": reference, "title": "m", "dest": str(node.out / "m")}
    file.write_text(node.config(entry, defaults={"tiers": {"https://docker.io/": ["https://cache.lan/"]}}))
    (listed,) = json.loads(node.run("check", "--json", str(file)).out)["artifacts"]
    manifest = f"v2/library/x/manifests/sha256:{DIGEST}"
    assert listed["urls"] == [f"https://cache.lan/{manifest}", f"https://registry-1.docker.io/{manifest}"]


def test_an_empty_list_keeps_an_artifact_away_from_the_caches_of_the_same_base(node: FakeNode) -> None:
    entry = node.entry("m", "http://o/m.bin", b"", tiers={"http://o:80/": []})
    file = node.folder / "fetch.yaml"
    file.write_text(node.config(entry, defaults={"tiers": {"http://O/": ["http://c/"]}}))
    (listed,) = json.loads(node.run("check", "--json", str(file)).out)["artifacts"]
    assert listed["urls"] == ["http://o/m.bin"]
