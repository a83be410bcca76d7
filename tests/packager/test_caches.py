"""The caches that `pxe-pack snippet` snippet, run as they are printed: what they ask the origin for, and for whom."""

from __future__ import annotations

import base64
import contextlib
import http.client
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fakes import caches, ports
from fakes.certs import Authority
from fakes.nginx import Nginx, nginx
from fakes.process import WebServer
from fakes.registry import MANIFEST, PASSWORD, USER, Registry, descriptor, digest, manifest, put, registry
from fakes.server import Server
from packing.site import Site
from pxe_pack import cli

KINDS = ("nginx-cache", "varnish", "squid")
CLIENTS = 6
MiB = 1 << 20
BODY = random.Random(7).randbytes(16 * MiB + 4321)
Snippet = Callable[..., str]


@contextlib.contextmanager
def cached(kind: str, folder: Path, snippet: Snippet, *, origin: str, extra: Sequence[str] = ()) -> Iterator[WebServer]:
    """A cache of `origin`; Squid's proxy is at a free port too."""
    port = ports.free()
    folder = folder / kind
    options = ["--origin", origin, "--port", str(port), "--cache-dir", str(folder / "cached"), "--cache-size", "1GiB"]
    folder.mkdir()
    (folder / "cached").mkdir()
    (folder / "cached").chmod(0o777)
    printed = snippet(kind, *options, *extra).replace("http_port 3128", f"http_port {ports.free()}")
    with caches.cache(kind, folder, printed=printed, port=port) as server:
        yield server


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Nginx]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file.bin").write_bytes(BODY)
    with nginx(tmp_path / "origin", root=root) as server:
        yield server


def sent(origin: Nginx) -> int:
    """The bytes of bodies that the origin has sent so far."""
    return sum(int(line[-1]) for line in origin.asked())


def get(
    port: int, path: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Status, body and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def at_once(number: int, fetch: Callable[[int], bytes]) -> list[bytes]:
    """What `number` clients get that begin at the same time."""
    barrier = Barrier(number)

    def run(client: int) -> bytes:
        barrier.wait()
        return fetch(client)

    with ThreadPoolExecutor(number) as pool:
        return [*pool.map(run, range(number))]


def pushed(origin: Registry, body: bytes, *, authorization: str = "") -> str:
    """The path of `body` in the registry, which has it in the manifest that is tagged v1."""
    put(origin, "site/model", manifest(descriptor(body, title="m.bin")), body, tag="v1", authorization=authorization)
    return f"/v2/site/model/blobs/{digest(body)}"


@pytest.mark.parametrize("kind", KINDS)
def test_clients_of_a_cold_cache_cost_the_origin_one_copy(
    kind: str, tmp_path: Path, snippet: Snippet, origin: Nginx
) -> None:
    with cached(kind, tmp_path, snippet, origin=origin.url("")) as cache:
        got = at_once(CLIENTS, lambda _: get(cache.port, "/file.bin")[1])
    assert [body == BODY for body in got] == [True] * CLIENTS
    assert sent(origin) / len(BODY) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_clients_that_ask_for_ranges_cost_the_origin_one_copy(
    kind: str, tmp_path: Path, snippet: Snippet, origin: Nginx
) -> None:
    """Each begins with another one, as nodes with several streams do."""
    step = 3 * MiB
    starts = [*range(0, len(BODY), step)]

    def fetch(client: int) -> bytes:
        parts: dict[int, bytes] = {}
        for start in starts[client:] + starts[:client]:
            last = min(start + step, len(BODY)) - 1
            status, parts[start], _ = get(cache.port, "/file.bin", headers={"Range": f"bytes={start}-{last}"})
            assert status == 206
        return b"".join(parts[start] for start in starts)

    with cached(kind, tmp_path, snippet, origin=origin.url("")) as cache:
        got = at_once(CLIENTS, fetch)
    assert [body == BODY for body in got] == [True] * CLIENTS
    assert sent(origin) / len(BODY) == pytest.approx(1.0, abs=0.001)


def test_clients_wait_for_a_slice_that_takes_longer_than_nginx_waits_by_default(
    tmp_path: Path, snippet: Snippet, origin: Nginx
) -> None:
    body = BODY[:1_200_000]
    (tmp_path / "root/small.bin").write_bytes(body)
    with cached("nginx-cache", tmp_path, snippet, origin=origin.url("")) as cache:
        began = time.monotonic()
        got = at_once(CLIENTS, lambda _: get(cache.port, "/slow/small.bin")[1])
        took = time.monotonic() - began
    assert [one == body for one in got] == [True] * CLIENTS
    assert took > 5, "the slice came too soon to show anything"
    assert sent(origin) / len(body) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cached_is_sent_when_the_origin_is_down(
    kind: str, tmp_path: Path, snippet: Snippet, origin: Nginx
) -> None:
    with cached(kind, tmp_path, snippet, origin=origin.url("")) as cache:
        assert get(cache.port, "/file.bin")[1] == BODY
        origin.kill()
        assert get(cache.port, "/file.bin")[1] == BODY
        assert get(cache.port, "/file.bin", headers={"Range": "bytes=5000000-"})[1] == BODY[5_000_000:]
        assert get(cache.port, "/other.bin")[0] >= 500
        origin.start()  # for the fixture, which ends it


def test_nginx_asks_after_a_while_whether_a_file_is_still_the_same(
    tmp_path: Path, snippet: Snippet, origin: Nginx
) -> None:
    """After two seconds here, instead of ten."""
    other = tmp_path / "root/other.bin"
    other.write_bytes(BODY)

    def sooner(*arguments: str | Path) -> str:
        printed = snippet(*arguments)
        assert printed.count("proxy_cache_valid 200 206 10s;") == 1
        return printed.replace("200 206 10s;", "200 206 2s;")

    first = {"Range": "bytes=0-999"}
    with cached("nginx-cache", tmp_path, sooner, origin=origin.url("")) as cache:
        for name in ("file.bin", "other.bin"):
            assert get(cache.port, f"/{name}", headers=first)[1] == BODY[:1000]
        time.sleep(3.2)  # nginx counts whole seconds
        before = sent(origin)  # by now, of whole slices
        other.with_name("new").write_bytes(BODY[::-1])
        other.with_name("new").replace(other)
        assert get(cache.port, "/file.bin", headers=first)[1] == BODY[:1000]
        assert (sent(origin), origin.asked()[-1][-2]) == (before, "304")
        assert get(cache.port, "/other.bin", headers=first)[1] == BODY[::-1][:1000]


WORD = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def test_a_registrys_blob_is_cached_for_those_whom_the_registry_lets_have_it(tmp_path: Path, snippet: Snippet) -> None:
    with registry(tmp_path / "registry", htpasswd=True) as origin:
        path = pushed(origin, BODY, authorization=WORD["Authorization"])
        with cached("nginx-cache", tmp_path, snippet, origin=origin.url("")) as cache:
            assert get(cache.port, path)[0] == 401
            got = at_once(CLIENTS, lambda _: get(cache.port, path, headers=WORD)[1])
            assert [body == BODY for body in got] == [True] * CLIENTS
            refused, _, fields = get(cache.port, path)
            assert (refused, fields["WWW-Authenticate"]) == (401, 'Basic realm="site"')
            assert get(cache.port, path, headers={"Authorization": "Basic Zm9vOmJhcg=="})[0] == 401
            missing = path[:-4] + "0000"
            assert get(cache.port, missing, headers=WORD)[0] == 404
            status, part, _ = get(cache.port, path, headers={**WORD, "Range": "bytes=5000000-5000999"})
            assert (status, part) == (206, BODY[5_000_000:5_001_000])
            origin.process.kill()
            assert get(cache.port, path, headers=WORD)[0] == 502  # nobody says who may have it
        assert origin.sent(path) / len(BODY) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("kind", ["varnish", "squid"])
def test_what_was_sent_for_a_password_is_not_for_others(kind: str, tmp_path: Path, snippet: Snippet) -> None:
    with registry(tmp_path / "registry", htpasswd=True) as origin:
        path = pushed(origin, BODY[:100_000], authorization=WORD["Authorization"])
        with cached(kind, tmp_path, snippet, origin=origin.url("")) as cache:
            for _ in range(2):
                assert get(cache.port, path, headers=WORD)[1] == BODY[:100_000]
                assert get(cache.port, path)[0] == 401


@pytest.mark.parametrize("kind", KINDS)
def test_blobs_of_a_public_registry_are_cached_and_tags_are_not(kind: str, tmp_path: Path, snippet: Snippet) -> None:
    with registry(tmp_path / "registry") as origin:
        path = pushed(origin, BODY)
        with cached(kind, tmp_path, snippet, origin=origin.url("")) as cache:
            got = at_once(CLIENTS, lambda _: get(cache.port, path)[1])
            assert [body == BODY for body in got] == [True] * CLIENTS
            assert origin.sent(path) / len(BODY) == pytest.approx(1.0, abs=0.001)
            for path in ("/v2/site/model/tags/list", "/v2/site/model/manifests/v1"):
                for _ in range(2):
                    assert get(cache.port, path, headers={"Accept": MANIFEST})[0] == 200
                assert origin.requests().count(f"GET {path}") == 2


@pytest.mark.parametrize("kind", ["nginx-cache", "squid"])
def test_it_is_a_proxy_for_its_origin_and_for_no_other(
    kind: str, tmp_path: Path, snippet: Snippet, origin: Nginx
) -> None:
    with cached(kind, tmp_path, snippet, origin=origin.url("")) as cache:
        printed = (cache.folder / "printed.conf").read_text()
        proxy = [*map(int, re.findall(r"^http_port (\d+)", printed, re.MULTILINE)), cache.port]
        port = proxy[1] if kind == "squid" else cache.port
        assert get(port, origin.url("/file.bin"))[1] == BODY
        assert get(cache.port, "/file.bin")[1] == BODY
        assert get(port, "http://127.0.0.1:9/file.bin")[0] == 403
        assert get(port, "http://elsewhere.lan/file.bin")[0] == 403
    assert sent(origin) / len(BODY) == pytest.approx(1.0, abs=0.001)


def test_what_nodes_report_passes_through(tmp_path: Path, snippet: Snippet) -> None:
    """Also with a token, which the origin is not asked about by POST."""
    with (
        Server() as origin,
        cached("nginx-cache", tmp_path, snippet, origin=origin.url("")) as cache,
    ):
        for headers in ({}, {"Authorization": "Bearer of-the-node"}):
            assert get(cache.port, origin.url("/report"), method="POST", body=b"{}", headers=headers)[0] == 204
        assert get(cache.port, origin.url("/x"), headers={"X-Forwarded-For": "192.0.2.1"})[0] == 404
        assert origin.asked_for("/x")[-1].fields["x-forwarded-for"] == "192.0.2.1, 127.0.0.1"
        asked = [one for one in origin.asked_for("/report") if one.method == "POST"]
        assert [one.fields["x-forwarded-for"] for one in asked] == ["127.0.0.1"] * 2
    assert [(one.body, one.fields.get("authorization")) for one in asked] == [
        (b"{}", None),
        (b"{}", "Bearer of-the-node"),
    ]


def test_port_and_slices_are_those_of_the_layout(site: Site, packs: Callable[..., str], snippet: Snippet) -> None:
    (site.folder / "m.bin").write_bytes(bytes(9 * MiB))
    site.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m.bin", "chunks": {"size": "2MiB"}}]}
    packs()
    lines = [line.strip() for line in snippet("nginx-cache", site.output, "--origin", "http://origin.lan").splitlines()]
    assert "slice 2m;" in lines
    assert "listen 8080 default_server;" in lines
    assert "server origin.lan:80;" in lines
    assert "http_port 8080 accel defaultsite=origin.lan no-vhost" in snippet(
        "squid", site.output, "--origin", "http://origin.lan"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nginx-cache"], "nginx-cache caches the files of another server, and none is given"),
        (["nginx-cache", "--origin", "http://h/files/"], "http://h has more than a host and a port: the path /files/"),
        (["nginx-cache", "--origin", "ftp://h"], "is not an http or https server"),
        *(
            (["nginx-cache", "--origin", f"http://{host}"], "is neither a name nor an address")
            for host in ("x;y", "$x", "x'y", "[fe80::1%25eth0]")
        ),
        (["nginx-cache", "--origin", "nowhere"], "the origin's URL has no scheme"),
        (["varnish", "--origin", "https://h"], "not for varnish"),
        (["squid", "--origin", "https://h"], "not for squid"),
        (["squid", "--origin", "http://h", "--dns", "10.0.0.1"], "squid announces neither DNS servers nor routers"),
        (["squid", "--origin", "http://h", "--cache-dir", "/a b"], "/a b cannot be the folder of a cache"),
        *(([kind, "--origin", "http://h", "--cache-size", "1023MiB"], "has no room for an ISO") for kind in KINDS),
        (["nginx"], "nginx serves a layout"),
        (["nginx", "pxe", "--origin", "http://h"], "nginx serves a layout, and has no origin"),
    ],
)
def test_what_cannot_be_cached_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert cli.main(["snippet", *arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_the_certificate_of_an_https_origin_is_verified(tmp_path: Path, snippet: Snippet) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file.bin").write_bytes(BODY)
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost")
    usual = "/etc/ssl/certs/ca-certificates.crt"

    def trusting(*arguments: str | Path) -> str:
        return snippet(*arguments).replace(usual, str(authority.certificate))

    with nginx(tmp_path / "origin", root=root, certificate=issued) as origin:
        for name, prints, status in (("stranger", snippet, 502), ("known", trusting, 200)):
            (tmp_path / name).mkdir()
            with cached("nginx-cache", tmp_path / name, prints, origin=origin.secure_url("")) as cache:
                assert get(cache.port, "/file.bin")[0] == status
