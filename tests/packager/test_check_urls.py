"""`check` asks for URLs as the agent asks, so that its verdict on a URL is the agent's."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import ports
from fakes.certs import Authority
from fakes.nginx import nginx
from fakes.node import FakeNode
from liveos import tiny
from liveos.specials import Inode
from packing.checking import Checked
from packing.site import ARTIFACT, Site, image_with_root

Check = Callable[..., Checked]
Packs = Callable[..., str]
BODY = b"the model\n" * 100
DIGEST = hashlib.sha256(BODY).hexdigest()
FOUND = {"size": len(BODY), "sha256": DIGEST}


class Handler(http.server.BaseHTTPRequestHandler):
    """A path says how it is answered: /head/404 has HEAD answered by 404, /get/404 GET, /ranges/400 a Range.

    /encoded/gzip has that Content-Encoding, /page/m that Content-Type of a web page.
    """

    protocol_version = "HTTP/1.1"
    asked: list[str]
    wanted = 0  # requests for /twice/503 so far

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        _, kind, status = self.path.split("/")[:3]
        self.send_response(int(status) if kind == "head" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_OPTIONS(self) -> None:
        self.asked.append(self.requestline)
        self._answer(int(self.path.split("/")[-1]), b"")

    def do_GET(self) -> None:
        self.asked.append(self.requestline)
        if self.path.startswith("http://"):  # it is asked as a proxy
            self.path = "/" + self.path.split("/", 3)[3]
        _, kind, status = self.path.split("/")[:3]
        ranged = self.headers.get("Range", "").startswith("bytes=")
        if kind == "to":
            self._answer(302, b"", Location=bytes.fromhex(status).decode())
        elif kind == "get" or (kind == "ranges" and ranged and status.isdigit()):
            self._answer(int(status), b"no")
        elif kind == "total":
            self._answer(206, BODY[:1], **{"Content-Range": f"bytes 0-0/{bytes.fromhex(status).decode()}"})
        elif kind == "encoded":
            self._answer(200, gzip.compress(BODY, mtime=0), **{"Content-Encoding": status})
        elif kind == "page":
            self._answer(200, BODY, **{"Content-Type": "text/html; charset=utf-8"})
        elif kind == "header" and self.headers.get("X-Site") != status:
            self._answer(403, b"no")
        elif kind == "twice" and type(self).wanted < 2:
            type(self).wanted += 1
            self._answer(int(status), b"wait")
        elif ranged and kind != "ranges":
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(BODY) - 1), len(BODY) - 1)
            self._answer(206, BODY[start : end + 1], **{"Content-Range": f"bytes {start}-{end}/{len(BODY)}"})
        else:
            self._answer(200, BODY)

    def _answer(self, status: int, body: bytes, **fields: str) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """A server that says nothing of clients that close their connections before the end."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the requests that it got."""
    asked: list[str] = []
    handler = type("Own", (Handler,), {"asked": asked, "wanted": 0})
    with Server(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def checked_online(site: Site, checked: Check, artifact: dict[str, object], **rest: object) -> Checked:
    site.rest = {"artifacts": [{**ARTIFACT, **FOUND, **artifact}], **rest}
    site.write_config()
    return checked(site.image, "--agent-config", site.config, online=True)


def agent_fetches(tmp_path: Path, artifact: dict[str, object]) -> bool:
    """Whether the agent gets the artifact."""
    for name in ("node", "out"):
        (tmp_path / name).mkdir(exist_ok=True)
    dest = tmp_path / "out/m"
    dest.unlink(missing_ok=True)
    one = {**ARTIFACT, **FOUND, **artifact, "dest": str(dest)}
    retry = {"attempts_without_progress": 4, "base": "10ms", "max": "50ms"}
    document = {"version": 1, "allowed_roots": [f"{tmp_path}/out"], "defaults": {"retry": retry}, "artifacts": [one]}
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps(document))
    return FakeNode(folder=tmp_path / "node").run("run", "--config", str(file)).code == 0


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        *((f"/head/{status}", "") for status in (200, 400, 403, 404, 405, 501, 503)),
        *((f"/ranges/{status}", "url-no-ranges") for status in (400, 406, 412, 416, 417)),
        ("/ranges/none", "url-no-ranges"),
        *((f"/get/{status}", "url-unreachable") for status in (204, 403, 404, 410)),
        ("/twice/503", ""),
        ("/header/lab", ""),
        ("/header/other", "url-unreachable"),
    ],
)
def test_the_verdict_on_a_server_is_the_agents(
    site: Site, checked: Check, server: tuple[str, list[str]], tmp_path: Path, *, path: str, reference: str
) -> None:
    base, _ = server
    artifact: dict[str, object] = {"url": base + path, "headers": {"X-Site": "lab"}}
    told = checked_online(site, checked, artifact)
    assert [name for name in told.found if name.startswith("url-")] == ([reference] if reference else [])
    assert agent_fetches(tmp_path, artifact) == (reference != "url-unreachable")


def test_redirects_are_followed_as_the_agent_follows_them(
    site: Site, checked: Check, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    base, _ = server
    for target, followed in ((f"{base}/head/404", True), ("/get/404", False), ("ftp://127.0.0.1/m", False)):
        artifact: dict[str, object] = {"url": f"{base}/to/{target.encode().hex()}"}
        told = checked_online(site, checked, artifact)
        assert told.severity("url-unreachable") == ("" if followed else "error"), target
        assert agent_fetches(tmp_path, artifact) == followed


def test_lists_of_digests_are_asked_for_too(site: Site, checked: Check, server: tuple[str, list[str]]) -> None:
    base, _ = server
    url = f"{base}/head/200"
    chunks = {"size": "64KiB", "url": f"{base}/get/404", "sha256": "0" * 64}
    told = checked_online(site, checked, {"url": url, "sha256": None, "chunks": chunks})
    assert "the chunks of artifact model" in told.found["url-unreachable"]["message"]
    told = checked_online(site, checked, {"url": url, "sha256": None, "sha256_url": f"{base}/get/403"})
    assert "the digest of artifact model" in told.found["url-unreachable"]["message"]


def test_urls_are_asked_for_through_the_configurations_proxy(
    site: Site, checked: Check, server: tuple[str, list[str]]
) -> None:
    base, asked = server
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unreachable = f"http://127.0.0.1:{closed.getsockname()[1]}"
    artifact: dict[str, object] = {"url": "http://only.behind.the.proxy/head/200"}
    told = checked_online(site, checked, artifact, proxy={"http": base})
    assert told.severity("url-unreachable") == ""
    assert asked == ["GET http://only.behind.the.proxy/head/200 HTTP/1.1"]
    direct: dict[str, object] = {"url": f"{base}/head/200"}
    assert checked_online(site, checked, direct, proxy={"http": unreachable}).severity("url-unreachable") == "error"
    exempt = {"http": unreachable, "no_proxy": ["127.0.0.0/8"]}
    assert checked_online(site, checked, direct, proxy=exempt).severity("url-unreachable") == ""
    secret = {"http": base, "credential": "pxe-fetch.proxy"}
    assert checked_online(site, checked, artifact, proxy=secret).severity("url-unasked") == "note"


def test_each_mirror_is_asked_and_the_caches_before_it_too(
    site: Site, checked: Check, server: tuple[str, list[str]]
) -> None:
    (base, asked), unreachable = server, f"http://127.0.0.1:{ports.free()}"
    tiers: dict[str, object] = {base: [[unreachable], f"{base}/head/"]}
    artifact: dict[str, object] = {"url": f"{base}/head/200", "required": True, "tiers": tiers}
    told = checked_online(site, checked, artifact)
    assert told.severity("url-unreachable") == "warning"
    assert {line.split()[1] for line in asked} == {"/head/head/200", "/head/200"}


def test_a_proxy_with_a_fallback_that_is_unreachable_is_passed_by(
    site: Site, checked: Check, server: tuple[str, list[str]]
) -> None:
    (base, asked), unreachable = server, f"http://127.0.0.1:{ports.free()}"
    proxy = {"http": unreachable, "fallback": "direct"}
    told = checked_online(site, checked, {"url": f"{base}/head/200"}, proxy=proxy)
    assert told.severity("url-unreachable") == ""
    assert asked == ["GET /head/200 HTTP/1.1"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        *((f"/report/{status}", "") for status in (200, 204, 401, 403, 405, 501)),
        *((f"/report/{status}", f"responds {status} to OPTIONS") for status in (404, 410, 503)),
    ],
)
def test_where_reports_go_is_asked_without_posting_one(
    site: Site, checked: Check, server: tuple[str, list[str]], path: str, told: str
) -> None:
    base, asked = server
    found = checked_online(site, checked, {"url": f"{base}/head/200"}, report={"url": f"{base}{path}"}).found
    assert asked == ["GET /head/200 HTTP/1.1", f"OPTIONS {path} HTTP/1.1"]
    assert ("report-unreachable" in found) == bool(told)
    if told:
        assert found["report-unreachable"]["severity"] == "warning"
        assert told in found["report-unreachable"]["message"]


def test_where_reports_go_is_reached_as_the_agent_reaches_it(
    site: Site, checked: Check, server: tuple[str, list[str]]
) -> None:
    base, asked = server
    artifact: dict[str, object] = {"url": f"{base}/head/200"}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
    found = checked_online(site, checked, artifact, report={"url": f"{gone}/report?token=s3cret"}).found
    assert "cannot be reached: Connection refused" in found["report-unreachable"]["message"]
    assert "s3cret" not in str(found)
    found = checked_online(site, checked, artifact, report={"url": "http://no-such-host.invalid/r"}).found
    assert "cannot be reached" in found["report-unreachable"]["message"]
    behind: dict[str, object] = {"http": base, "no_proxy": ["127.0.0.1"]}
    found = checked_online(site, checked, artifact, report={"url": "http://behind.lan/200"}, proxy=behind).found
    assert asked[-1] == "OPTIONS http://behind.lan/200 HTTP/1.1"
    assert "report-unreachable" not in found
    found = checked_online(site, checked, artifact, report={"url": "http://${hostname}.lan/"}).found
    assert "the report: http://${hostname}.lan/ was not checked" in found["url-unasked"]["message"]


def test_the_iso_is_asked_for_as_dracut_fetches_it_without_the_agents_proxy(
    site: Site, packs: Packs, checked: Check, server: tuple[str, list[str]]
) -> None:
    base, asked = server
    site.rest = {"artifacts": [], "proxy": {"http": "http://127.0.0.1:9"}}
    packs("--boot-url", f"{base}/ranges/none/liveos.iso")
    told = checked(site.output, online=True)
    assert asked == ["GET /ranges/none/liveos.iso HTTP/1.1"]
    of_iso = [name for name, found in told.found.items() if str(found["message"]).startswith("liveos.iso: ")]
    assert of_iso == ["url-size"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def image_with(site: Site, files: dict[str, bytes]) -> Path:
    """The site's image with these files in /etc/site."""
    folder = Inode("etc/site", b"5", mode=0o755)
    where = site.folder / f"image-{len(list(site.folder.iterdir()))}"
    where.mkdir()
    added = [Inode(f"etc/site/{name}", data=content) for name, content in files.items()]
    return image_with_root(site.image, [*tiny.tree(), folder, *added], where)


def test_a_sites_own_authority_is_trusted_where_the_configuration_names_it(
    site: Site, checked: Check, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/m.bin").write_bytes(BODY)
    issued = authority.issue("localhost", alternative="DNS:localhost")
    plain = site.image
    with nginx(tmp_path / "nginx", root=tmp_path / "www", certificate=issued) as running:
        artifact: dict[str, object] = {"url": running.secure_url("/m.bin")}
        told = checked_online(site, checked, artifact)
        assert told.severity("url-unreachable") == "error"
        assert "certificate" in told.found["url-unreachable"]["message"]
        site.image = image_with(site, {"ca.pem": authority.certificate.read_bytes()})
        told = checked_online(site, checked, artifact, tls={"ca_file": "/etc/site/ca.pem"})
        assert not [name for name in told.found if name.startswith(("url-", "tls-")) and name != "url-host-name"]
        site.image = plain
        told = checked_online(site, checked, artifact, tls={"ca_file": str(authority.certificate)})
        assert (told.severity("url-unreachable"), told.severity("tls-file-missing")) == ("", "warning")
        told = checked_online(site, checked, artifact, tls={"ca_file": "/etc/site/ca.pem"})
        assert (told.severity("url-unasked"), told.severity("tls-file-missing")) == ("note", "warning")


def test_a_nodes_own_certificate_is_shown_to_servers_that_want_one(
    site: Site, checked: Check, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/m.bin").write_bytes(BODY)
    issued, node = authority.issue("localhost", alternative="DNS:localhost"), authority.issue("node")
    names = {"ca_file": authority.certificate, "client_cert": node.certificate, "client_key": node.key}
    site.image = image_with(site, {name: path.read_bytes() for name, path in names.items()})
    tls = {name: f"/etc/site/{name}" for name in names}
    with nginx(
        tmp_path / "nginx", root=tmp_path / "www", certificate=issued, clients_of=authority.certificate
    ) as running:
        artifact: dict[str, object] = {"url": running.secure_url("/m.bin")}
        told = checked_online(site, checked, artifact, tls=tls)
        assert not [name for name in told.found if name.startswith(("url-", "tls-")) and name != "url-host-name"]
        told = checked_online(site, checked, artifact, tls={"ca_file": tls["ca_file"]})
        assert told.severity("url-unreachable") == "error"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/encoded/gzip", "is sent with Content-Encoding gzip, which nodes do not undo"),
        ("/page/m", "is sent as text/html: a web page, perhaps a login or an error"),
        ("/page/index.html", ""),
        ("/encoded/identity", ""),
    ],
)
def test_an_answer_that_may_not_be_the_file_is_told(
    site: Site, checked: Check, server: tuple[str, list[str]], path: str, why: str
) -> None:
    address, _ = server
    one = {key: value for key, value in ARTIFACT.items() if key != "size"}
    site.rest = {"artifacts": [{**one, "url": address + path}]}
    site.write_config()
    told = checked(site.image, "--agent-config", site.config, online=True)
    assert told.severity("url-doubtful") == ("warning" if why else "")
    assert not why or why in told.found["url-doubtful"]["message"]


@pytest.mark.parametrize("total", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "*"])
def test_a_size_that_is_no_number_is_none(
    site: Site, checked: Check, server: tuple[str, list[str]], total: str
) -> None:
    address, asked = server
    told = checked_online(site, checked, {"url": f"{address}/total/{total.encode().hex()}"})
    assert not {"url-unreachable", "url-size"} & told.found.keys()
    assert asked
